"""A torch file as it lies: its pickle, and where the bytes of each storage are."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from snnprune.checkpoint.containers.torch.opcodes import BadPickleError, CutPickleError, Unpickling
from snnprune.checkpoint.containers.torch.tensors import Storage, known, storage_of
from snnprune.checkpoint.containers.torch.zip_archive import (
    data_offset,
    pickle_of,
    require_torch_archive,
)
from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN, reading

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
SAVE_STATE_DICT = "save the state_dict instead: torch.save(model.state_dict(), FILE)"


@dataclass(frozen=True)
class Place:
    """Where in the file the bytes of a storage are."""

    offset: int
    nbytes: int
    member: zipfile.ZipInfo | None = None
    """What the zip archive says of it."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What a torch file holds; nothing but its pickle has been read."""

    path: Path
    value: object
    """What was saved: plain containers, `Stored` tensors, and records of all else."""
    names: tuple[str, ...]
    """Every function and class that its pickle names."""
    places: Mapping[str, Place]
    """By key of a storage."""
    swapped: bool
    """Whether its bytes are in the other order than this machine's."""

    def storage(self, file: BinaryIO, storage: Storage) -> torch.UntypedStorage:
        """The bytes of a storage, read from the open file.

        Raises:
            InputError: they are not all there.
        """
        place = self.place_of(storage)
        values = torch.empty(storage.nbytes, dtype=torch.uint8)
        file.seek(place.offset)
        if file.readinto(values.numpy()) != storage.nbytes:  # type: ignore[attr-defined]
            raise InputError(
                "truncated or damaged: a tensor has no values", file=self.path, hint=COPY_AGAIN
            )
        found = values.untyped_storage()
        if self.swapped:
            found.byteswap(storage.dtype)
        return found

    def place_of(self, storage: Storage) -> Place:
        """Where the bytes of a storage are.

        Raises:
            InputError: nowhere, or there are fewer than it says.
        """
        place = self.places.get(storage.key)
        if place is None:
            raise InputError(
                f"truncated or damaged: storage {storage.key[:40]!r} is missing",
                file=self.path,
                hint=COPY_AGAIN,
            )
        if place.nbytes < storage.nbytes:
            raise InputError(
                f"truncated or damaged: storage {storage.key[:40]!r} claims {storage.nbytes:,} "
                f"bytes, {place.nbytes:,} are stored",
                file=self.path,
                hint=COPY_AGAIN,
            )
        return place


def read_archive(path: Path) -> Archive:
    """Read the pickle of a torch file, of the zip or of the older format; nothing in it is called.

    Raises:
        InputError: the file is damaged or no torch file.
    """
    with reading(path) as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        try:
            return _of_zip(file, path) if is_zip else _of_old(file, path)
        except CutPickleError as error:
            raise InputError(
                f"truncated or damaged: {error}", file=path, hint=COPY_AGAIN
            ) from error
        except BadPickleError as error:
            raise InputError(
                f"is a pickle that torch.save did not write, or damaged: {error}",
                file=path,
                hint=SAVE_STATE_DICT,
            ) from error


def _of_zip(file: BinaryIO, path: Path) -> Archive:
    members = require_torch_archive(file, path)
    main = pickle_of(members)
    folder = main.filename.removesuffix("data.pkl")
    size = file.seek(0, io.SEEK_END)
    places = {}
    for name, member in members.items():
        if name.startswith(f"{folder}data/"):
            offset = data_offset(file, member, path, size)
            places[name.removeprefix(f"{folder}data/")] = Place(offset, member.file_size, member)
    order = members.get(f"{folder}byteorder")
    swapped = order is not None and _text_of(file, order, path, size) not in (sys.byteorder, "")
    file.seek(data_offset(file, main, path, size))
    machine = Unpickling(
        io.BytesIO(file.read(main.file_size)), known=known, persistent=_persistent({})
    )
    value = machine.load()
    return Archive(
        path=path, value=value, names=tuple(machine.names), places=places, swapped=swapped
    )


def _text_of(file: BinaryIO, member: zipfile.ZipInfo, path: Path, size: int) -> str:
    file.seek(data_offset(file, member, path, size))
    return file.read(min(member.file_size, 10)).decode("ascii", "replace")


def _of_old(file: BinaryIO, path: Path) -> Archive:
    """Five pickles in a row, then for each storage the number of its elements and its bytes."""
    storages: dict[str, Storage] = {}
    machine = Unpickling(file, known=known, persistent=_persistent(storages))
    if machine.load() != MAGIC or machine.load() != VERSION:
        raise BadPickleError("its magic number is another")
    system = machine.load()
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    value = machine.load()
    keys = machine.load()
    places = dict(_old_places(file, keys, storages, path))
    swapped = bool(little) != (sys.byteorder == "little")
    return Archive(
        path=path, value=value, names=tuple(machine.names), places=places, swapped=swapped
    )


def _old_places(
    file: BinaryIO, keys: object, storages: Mapping[str, Storage], path: Path
) -> Iterator[tuple[str, Place]]:
    here, size = file.tell(), file.seek(0, io.SEEK_END)
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise BadPickleError("a storage has no type")
        file.seek(here)
        count = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))[0]
        nbytes = count * storage.dtype.itemsize
        if not 0 <= nbytes <= size - here - 8:
            raise InputError(
                "truncated or damaged: a tensor has no values", file=path, hint=COPY_AGAIN
            )
        yield key, Place(here + 8, nbytes)
        here += 8 + nbytes


def _persistent(storages: dict[str, Storage]) -> Callable[[object], object]:
    """What persistent ids stand for; `storages` gets each by its key."""

    def stands_for(saved: object) -> object:
        match saved:
            case ("module", cls, *_):  # older files have the source of classes beside them
                return cls
        storage = storage_of(saved)
        if storage is not None:
            storages.setdefault(storage.key, storage)
        return storage

    return stands_for
