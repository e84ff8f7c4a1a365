"""The format of torch since 1.6: a zip archive of a pickle and one part for each storage."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from snnprune.checkpoint.containers.torch.formats.directory import (
    Part,
    parts_of,
    place_of,
    require_apart,
)
from snnprune.checkpoint.containers.torch.formats.opened import (
    SAVE_STATE_DICT,
    Opened,
    StoredPart,
    damaged,
    is_other_order,
    machine,
    refusing,
)
from snnprune.checkpoint.containers.torch.meaning import Tensors
from snnprune.checkpoint.containers.torch.tensors import Storage
from snnprune.errors import InputError

ALIGNMENT = 64
"""Bytes, so that tensors can be mapped into memory."""


def opened(file: BinaryIO, path: Path) -> Opened:
    """The archive with its pickle read and its storages found.

    Raises:
        InputError: it is damaged, of another kind, or would grow when it is read.
    """
    parts = parts_of(file, path)
    _require_torch(parts, file.seek(0, 2), path)
    top = _top(parts)
    by_name = {part.name: part for part in parts}
    pickle = by_name[f"{top}data.pkl"]
    begin = place_of(file, pickle, path).begin
    tensors = Tensors()
    with refusing(path):
        root = machine(_read(file, pickle, path), tensors, file.seek(0, 2)).run()
    order = by_name.get(f"{top}byteorder")
    swapped = order is not None and is_other_order(_read(file, order, path)[:10])
    stored = {key: _found(file, key, tensors, by_name.get(f"{top}data/{key}"), path)
              for key in tensors.storages}  # fmt: skip
    end = begin + pickle.size
    return Opened(
        format="zip",
        root=root,
        tensors=tensors,
        begin=begin,
        end=end,
        swapped=swapped,
        parts=stored,
    )


def write(
    file: BinaryIO,
    out: BinaryIO,
    _: Opened,
    pickled: bytes,
    parts: Mapping[Storage, Tensor | None],
) -> None:
    """The archive with another pickle and these storages; those without bytes have their old ones.

    What else is in it stays, in its order; bytes begin at multiples of 64, as torch wants them.
    """
    there = parts_of(file, Path())
    top = _top(there)
    names = {f"{top}data/{storage.key}": storage for storage in parts}
    with zipfile.ZipFile(out, "w") as archive:
        for part in there:
            if part.name == f"{top}data.pkl":
                _add(archive, part.name, pickled)
            elif (storage := names.pop(part.name, None)) is not None:
                _add_storage(archive, part.name, storage, parts[storage], file)
            elif not part.name.startswith(f"{top}data/"):
                _add(archive, part.name, _read(file, part, Path()))
        for name, storage in names.items():
            _add_storage(archive, name, storage, parts[storage], file)


def _add_storage(
    archive: zipfile.ZipFile, name: str, storage: Storage, data: Tensor | None, file: BinaryIO
) -> None:
    if data is None:
        file.seek(storage.begin)
        _add(archive, name, file.read(storage.nbytes))
    else:
        _add(archive, name, data.numpy().data)


def _add(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(name)
    assert archive.fp is not None
    begin = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -begin % ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(entry, data)


def _found(
    file: BinaryIO, key: object, tensors: Tensors, part: Part | None, path: Path
) -> StoredPart:
    """Note where a storage lies; the part that it is in."""
    storage = tensors.storages[key]
    if part is None:
        raise damaged(f"the part of storage {key} is missing", path)
    if part.size < storage.nbytes and storage.doubt is None:
        raise damaged(
            f"storage {key!r} claims {storage.nbytes:,} bytes, {part.size:,} are stored", path
        )
    place = place_of(file, part, path)
    storage.begin = place.begin
    return StoredPart(part.size, place.crcs)


def _read(file: BinaryIO, part: Part, path: Path) -> bytes:
    file.seek(place_of(file, part, path).begin)
    return file.read(part.size)


def _require_torch(parts: list[Part], size: int, path: Path) -> None:
    names = [part.name for part in parts]
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(
            "is a NumPy archive (npz), which is not supported", file=path, hint=SAVE_STATE_DICT
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            "is a TorchScript archive: holds code, which snnprune never runs",
            file=path,
            hint=SAVE_STATE_DICT,
        )
    if _top(parts) is None:
        raise InputError(
            "is a zip archive without the data.pkl of a torch file",
            file=path,
            hint="name the checkpoint itself",
        )
    if not all(part.plain for part in parts):
        raise InputError(
            "holds compressed parts, which torch.save never writes",
            file=path,
            hint="unpack it and pack it again without compression (zip -0)",
        )
    require_apart(parts, size, path)


def _top(parts: list[Part]) -> str | None:
    """The folder in the archive that everything is in, with a slash behind it."""
    names = (part.name for part in parts if part.name.endswith("/data.pkl"))
    found = next((name for name in names if name.count("/") == 1), None)
    return found and found.removesuffix("data.pkl")
