"""A torch file written again with other values in its state_dict, every other byte as it was."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.containers.raw import bytes_of
from snnprune.checkpoint.containers.torch.archive import Archive, Place, read_archive
from snnprune.checkpoint.containers.torch.state_dict import state_dict_in
from snnprune.checkpoint.containers.torch.tensors import Storage, Stored, inside
from snnprune.checkpoint.naming import counted, first_few
from snnprune.errors import InputError
from snnprune.files import replacing
from snnprune.readable import reading

CENTRAL = b"PK\x01\x02"
"""What begins an entry of the directory at the end of a zip archive."""


@dataclass(frozen=True)
class Patch:
    """Other bytes for a storage."""

    place: Place
    before: memoryview
    after: memoryview


def rewrite(source: Checkpoint, out: Path, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Write the file of `source` to `out` with `tensors`, by their keys in it, in its state_dict.

    The file is copied and the bytes of storages that change are replaced where they lie, with the
    checksums over them. What the file holds beside the state_dict is not even looked at. Masks of
    torch.nn.utils.prune stay beside the weights. Notes on what is as it was.

    Raises:
        InputError: two tensors of one storage would have to differ, or its bytes are in the order
            of another kind of machine.
        OutputError: `out` cannot be written.
    """
    archive = read_archive(source.path)
    found = state_dict_in(archive.value, source.path, source.entry)
    stored, wanted = found.tensors, _unfolded(found.tensors, tensors, source)
    with reading(source.path) as file:
        changed = _Changed(archive, file)
        for step in (changed.take, changed.check):
            for name, value in wanted.items():
                step(name, stored[name], value)
        patches = changed.patches()
    if archive.swapped and patches:
        raise InputError(
            "was saved on a machine with the other byte order",
            file=source.path,
            hint="write a .safetensors file instead",
        )
    with replacing(out) as temporary:
        shutil.copyfile(source.path, temporary)
        with temporary.open("r+b") as file:
            _patch(file, patches)
    return _notes(archive, stored, {patch.place.offset for patch in patches}, source)


def _unfolded(
    stored: Mapping[str, Stored], tensors: Mapping[str, Tensor], source: Checkpoint
) -> dict[str, Tensor]:
    """The values by the keys of the file: a weight that was folded goes back into its two parts."""
    wanted = {name: value for name, value in tensors.items() if name in stored}
    for name, folded in source.folded.items():
        value = tensors.get(folded)
        if value is None or name not in stored:
            continue
        wanted[name] = (value != 0).to(stored[name].dtype) if name.endswith("_mask") else value
    return wanted


class _Changed:
    """The storages of a file with the values that they get."""

    def __init__(self, archive: Archive, file: BinaryIO) -> None:
        self.archive, self.file = archive, file
        self.before: dict[Storage, torch.UntypedStorage] = {}
        self.values: dict[Storage, torch.UntypedStorage] = {}

    def take(self, name: str, stored: Stored, value: Tensor) -> None:
        """Put `value` where a tensor lies; one of another shape or type stays as it was."""
        if not _fits(stored, value):
            return
        if stored.storage not in self.before:
            read = self.archive.storage(self.file, stored.storage)
            self.before[stored.storage], self.values[stored.storage] = read, read.clone()
        if name.endswith("_mask"):  # what was pruned before stays pruned
            value = value * stored.of(self.before[stored.storage])
        held = stored.of(self.values[stored.storage])
        if not _same(held, value):
            held.copy_(value)

    def check(self, name: str, stored: Stored, value: Tensor) -> None:
        """Refuse where what one tensor wants has been written over by another.

        Raises:
            InputError: it has.
        """
        if not _fits(stored, value) or name.endswith("_mask"):
            return
        if not _same(stored.of(self.values[stored.storage]), value):
            raise InputError(
                "shares its memory with a tensor that gets other values",
                file=self.archive.path,
                field=name,
                hint="write a .safetensors file instead",
            )

    def patches(self) -> list[Patch]:
        """Those of storages whose bytes are others now."""
        found = []
        for storage, values in self.values.items():
            before, after = _flat(self.before[storage]), _flat(values)
            if not torch.equal(before, after):
                views = (one.numpy().data for one in (before, after))
                found.append(Patch(self.archive.place_of(storage), *views))
        return found


def _fits(stored: Stored, value: Tensor) -> bool:
    return tuple(value.shape) == stored.size and value.dtype == stored.dtype


def _flat(values: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(values)


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have one shape and the same bits."""
    return left.shape == right.shape and torch.equal(bytes_of(left), bytes_of(right))


def _patch(file: BinaryIO, patches: list[Patch]) -> None:
    for patch in patches:
        file.seek(patch.place.offset)
        file.write(patch.after)
    _patch_checksums(file, [patch for patch in patches if patch.place.member is not None])


def _patch_checksums(file: BinaryIO, patches: list[Patch]) -> None:
    """Write the CRC-32 of each member anew, in the places that had it."""
    wanted: dict[int, tuple[int, int]] = {}
    for patch in patches:
        member = patch.place.member
        assert member is not None
        rest = _rest(file, patch)
        old, new = (zlib.crc32(rest, zlib.crc32(part)) for part in (patch.before, patch.after))
        if old == member.CRC:  # torch can be told to write none
            wanted[member.header_offset] = (old, new)
            _replace(file, member.header_offset + 14, old, new)
            end = patch.place.offset + patch.place.nbytes
            for distance in (0, 4):  # a descriptor behind the bytes, with its signature or without
                _replace(file, end + distance, old, new)
    _patch_directory(file, wanted)


def _rest(file: BinaryIO, patch: Patch) -> bytes:
    """What a member holds behind the values of its storage, mostly nothing."""
    file.seek(patch.place.offset + len(patch.after))
    return file.read(patch.place.nbytes - len(patch.after))


def _replace(file: BinaryIO, offset: int, old: int, new: int) -> None:
    file.seek(offset)
    if file.read(4) == struct.pack("<L", old):
        file.seek(offset)
        file.write(struct.pack("<L", new))


def _patch_directory(file: BinaryIO, wanted: Mapping[int, tuple[int, int]]) -> None:
    """Write the checksums into the directory, which is known by where its entries point to."""
    if not wanted:
        return
    with zipfile.ZipFile(file) as archive:
        here = archive.start_dir
        entries = len(archive.infolist())
        offsets = [member.header_offset for member in archive.infolist()]
    for number in range(entries):
        file.seek(here)
        header = file.read(46)
        assert header.startswith(CENTRAL)
        name, extra, comment = struct.unpack("<3H", header[28:34])
        if (change := wanted.get(offsets[number])) is not None:
            _replace(file, here + 16, *change)
        here += 46 + name + extra + comment


def _notes(
    archive: Archive, stored: Mapping[str, Stored], changed: set[int], source: Checkpoint
) -> tuple[str, ...]:
    notes = []
    value = archive.value
    if isinstance(value, dict) and any("optimizer" in str(key) for key in value):
        notes.append("the optimizer's state is as it was, also of weights that are pruned now")
    if source.folded:
        notes.append(
            f"{counted(len(source.folded) // 2, 'weight')} of torch.nn.utils.prune stay as a "
            "weight and its mask in a torch file"
        )
    own = {id(one) for one in stored.values()}
    keys = {key for key, place in archive.places.items() if place.offset in changed}
    others = [
        name
        for name, one in inside(archive.value)
        if one.storage.key in keys and id(one) not in own
    ]
    if others:
        notes.append(f"changed too, since they are the same memory: {first_few(others)}")
    return tuple(notes)
