"""The format of torch before 1.6: five pickles in a row, then the storages."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from snnprune.checkpoint.containers.torch.formats.opened import Opened, damaged, machine, refusing
from snnprune.checkpoint.containers.torch.meaning import Tensors
from snnprune.checkpoint.containers.torch.pickled.machine import (
    CutPickleError,
    Machine,
    MalformedPickleError,
)
from snnprune.checkpoint.containers.torch.tensors import Storage

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle."""

VERSION = 1001
"""The second."""

FIRST_READ = 2**23
"""Bytes read at first; where the pickles go on, eight times as many, and so on."""


def opened(file: BinaryIO, path: Path) -> Opened:
    """The file with its pickles read and its storages found.

    Raises:
        InputError: it is damaged, or no such file.
    """
    size = file.seek(0, 2)
    length = FIRST_READ
    while True:
        file.seek(0)
        data = file.read(length)
        with contextlib.suppress(CutPickleError):  # of what was read
            return _opened(data, size, file, path)
        length *= 8


def _opened(data: bytes, size: int, file: BinaryIO, path: Path) -> Opened:
    tensors = Tensors()
    reading = machine(data, tensors, size)
    with refusing(path, partial=len(data) < size):
        _require_head(reading)
        begin = reading.place
        root = reading.run()
        end = reading.place
        keys = reading.run()
    if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
        raise damaged("the list of its storages is none", path)
    _find(file, tensors, keys, reading.place, path)
    return Opened(format="old", root=root, tensors=tensors, begin=begin, end=end, first=begin)


def write(
    file: BinaryIO,
    out: BinaryIO,
    held: Opened,
    pickled: bytes,
    parts: Mapping[Storage, Tensor | None],
) -> None:
    """The file with another pickle and these storages; those without bytes have their old ones."""
    file.seek(0)
    out.write(file.read(held.begin))
    out.write(pickled)
    pickle.dump([storage.key for storage in parts], out, protocol=2)
    for storage, data in parts.items():
        out.write(storage.count.to_bytes(8, "little"))
        if data is not None:
            out.write(data.numpy().data)
        else:
            file.seek(storage.begin)
            out.write(file.read(storage.nbytes))


def _require_head(reading: Machine) -> None:
    if reading.run() != MAGIC or reading.run() != VERSION:
        raise MalformedPickleError("it does not begin as one")
    reading.run()  # the sizes of numbers where it was written


def _find(file: BinaryIO, tensors: Tensors, keys: list[object], at: int, path: Path) -> None:
    """Note where each storage lies; its elements are counted in eight bytes before it."""
    size = file.seek(0, 2)
    for key in keys:
        storage = tensors.storages.get(key)
        if storage is None or storage.begin >= 0:
            raise damaged(f"the storage {key} is not described, or twice there", path)
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        if count != storage.count:
            raise damaged(
                f"storage {key} has {count:,} elements, {storage.count:,} are claimed", path
            )
        storage.begin = at + 8
        at = storage.begin + storage.nbytes
        if at > size:
            raise damaged(f"{size:,} of at least {at:,} bytes", path)
    if lost := [key for key, storage in tensors.storages.items() if storage.begin < 0]:
        raise damaged(f"the storage {lost[0]} is missing", path)
