"""The format of torch 0.1: a tar archive of a pickle, of tensors and of storages.

`storages` is a count as a pickle; for each a pickle `(key, device, class)`, eight bytes with its
number of elements and these; then a pickle of views. `tensors` is a count, and for each a pickle
`(key, storage, class)`, its dimensions in eight bytes, sizes, strides and offset. In `pickle`,
persistent ids are their keys.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from snnprune.checkpoint.torch.machine import CutPickleError, Machine, MalformedPickleError
from snnprune.checkpoint.torch.parts import (
    TorchFile,
    convert_pickle_errors,
    damaged_error,
    make_machine,
)
from snnprune.checkpoint.torch.stand_ins import PickledTensors
from snnprune.checkpoint.torch.stored_tensors import Storage, View, rebuild_tensor

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle."""

VERSION = 1001
"""The second."""

FIRST_READ = 2**23
"""Bytes read at first; where the pickles go on, eight times as many, and so on."""


def open_legacy(file: BinaryIO, path: Path) -> TorchFile:
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
            return _open_pickles(data, size, file, path)
        length *= 8


def _open_pickles(data: bytes, size: int, file: BinaryIO, path: Path) -> TorchFile:
    tensors = PickledTensors()
    reading = make_machine(data, tensors, size)
    with convert_pickle_errors(path, partial=len(data) < size):
        _require_head(reading)
        begin = reading.place
        root = reading.run()
        end = reading.place
        keys = reading.run()
    if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
        raise damaged_error("the list of its storages is none", path)
    _find_storages(file, tensors, keys, reading.place, path)
    return TorchFile(format="old", root=root, tensors=tensors, begin=begin, end=end, first=begin)


def write_legacy(
    file: BinaryIO,
    out: BinaryIO,
    held: TorchFile,
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


def _find_storages(
    file: BinaryIO, tensors: PickledTensors, keys: list[object], at: int, path: Path
) -> None:
    """Note where each storage lies; its elements are counted in eight bytes before it."""
    size = file.seek(0, 2)
    for key in keys:
        storage = tensors.storages.get(key)
        if storage is None or storage.begin >= 0:
            raise damaged_error(f"the storage {key} is not described, or twice there", path)
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        if count != storage.count:
            raise damaged_error(
                f"storage {key} has {count:,} elements, {storage.count:,} are claimed", path
            )
        storage.begin = at + 8
        at = storage.begin + storage.nbytes
        if at > size:
            raise damaged_error(f"{size:,} of at least {at:,} bytes", path)
    if lost := [key for key, storage in tensors.storages.items() if storage.begin < 0]:
        raise damaged_error(f"the storage {lost[0]} is missing", path)


MEMBERS = {"pickle", "storages", "tensors"}

BLOCK = 512
"""Bytes of a tar header; members begin at multiples of it."""

MOST_MEMBERS = 100


def is_torch(file: BinaryIO) -> bool:
    """Whether a tar archive has the members of a torch file."""
    return _read_members(file).keys() >= MEMBERS


def open_tar(file: BinaryIO, path: Path) -> TorchFile:
    """The archive with its pickle read and its storages found.

    Raises:
        InputError: it is damaged.
    """
    members = _read_members(file)
    size = file.seek(0, 2)
    if any(begin + length > size for begin, length in members.values()):
        raise damaged_error("a member of the tar archive is cut", path)
    tensors = PickledTensors()
    try:
        with convert_pickle_errors(path):
            _read_storages(
                _make_member_machine(file, members["storages"], tensors), tensors, members
            )
            _read_tensors(_make_member_machine(file, members["tensors"], tensors), tensors)
            root = _make_member_machine(file, members["pickle"], tensors).run()
    except (struct.error, TypeError, ValueError):
        raise damaged_error("its list of tensors is none", path) from None
    begin, length = members["pickle"]
    return TorchFile(format="tar", root=root, tensors=tensors, begin=begin, end=begin + length)


def _read_members(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Where the bytes of each member begin, and how many they are.

    Not read by `tarfile`, whose headers can be made to take for ever.
    """
    found: dict[str, tuple[int, int]] = {}
    at = 0
    for _ in range(MOST_MEMBERS):
        file.seek(at)
        head = file.read(BLOCK)
        digits = head[124:136].strip(b" \0")
        if len(head) < BLOCK or not digits.isdigit() or set(digits) & set(b"89"):
            break
        name = head[:100].partition(b"\0")[0].decode("ascii", "replace")
        found.setdefault(name, (at + BLOCK, int(digits, 8)))
        at += BLOCK + -(-int(digits, 8) // BLOCK) * BLOCK
    return found


def _make_member_machine(
    file: BinaryIO, member: tuple[int, int], tensors: PickledTensors
) -> Machine:
    file.seek(member[0])
    return make_machine(file.read(member[1]), tensors, 0)


def _read_storages(
    reading: Machine, tensors: PickledTensors, members: dict[str, tuple[int, int]]
) -> None:
    for _ in range(_read_count(reading)):
        key, location, kind = _read_triple(reading)
        count = reading.number(8)
        storage = tensors.storage(kind, key, location, count)
        storage.begin = members["storages"][0] + reading.place
        tensors.others[key] = View(storage, 0, count)
        reading.skip(storage.nbytes)
    views = reading.run()
    for target, root, offset, count in views if isinstance(views, list) else []:
        whole = tensors.others[root]
        if not isinstance(whole, View) or offset + count > whole.count or min(offset, count) < 0:
            raise MalformedPickleError("refers to a part outside its storage")
        tensors.others[target] = View(whole.storage, whole.offset + offset, count)


def _read_tensors(reading: Machine, tensors: PickledTensors) -> None:
    for _ in range(_read_count(reading)):
        key, storage, _ = _read_triple(reading)
        dimensions = reading.number(8) & 0xFFFFFFFF
        if dimensions > 64:
            raise MalformedPickleError("has a tensor of too many dimensions")
        size = struct.unpack(f"<{dimensions}q", reading.take(8 * dimensions))
        stride = struct.unpack(f"<{dimensions}q", reading.take(8 * dimensions))
        offset = struct.unpack("<q", reading.take(8))[0]
        arguments = (tensors.others.get(storage), offset, size, stride)
        found = rebuild_tensor("torch._utils._rebuild_tensor", arguments, -1)
        if found is None or key in tensors.others:
            raise MalformedPickleError("has a tensor twice")
        tensors.all.append(found)
        tensors.others[key] = found


def _read_count(reading: Machine) -> int:
    count = reading.run()
    if type(count) is not int or not 0 <= count <= len(reading.data):
        raise MalformedPickleError("does not say how many there are")
    return count


def _read_triple(reading: Machine) -> tuple[object, object, object]:
    value = reading.run()
    if not isinstance(value, tuple) or len(value) != 3 or type(value[0]) is not int:
        raise MalformedPickleError("has a line of another form")
    if type(value[1]) not in (int, str):
        raise MalformedPickleError("has a line of another form")
    return value
