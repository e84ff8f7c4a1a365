"""The formats that torch has written: a zip archive, pickles in a row, and a tar archive.

The zip archive, since 1.6, is of a pickle and one part for each storage. Before, the pickle came
after two that say what it is, and then the storages. Up to 0.1 it was a tar archive of a pickle, of
tensors and of storages: `storages` is a count as a pickle; for each a pickle `(key, device,
class)`, eight bytes with its number of elements and these; then a pickle of views. `tensors` is a
count, and for each a pickle `(key, storage, class)`, its dimensions in eight bytes, sizes, strides
and offset. In `pickle`, persistent ids are their keys.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from snnprune.checkpoint.torch.machine import CutPickleError, Machine, MalformedPickleError
from snnprune.checkpoint.torch.stand_ins import (
    SAVE_STATE_DICT,
    PickledTensors,
    Storage,
    StoredPart,
    TorchFile,
    View,
    convert_pickle_errors,
    damaged_error,
    is_other_order,
    make_machine,
    rebuild_tensor,
)
from snnprune.errors import InputError

END, END64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENTRY, LOCAL, DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"

LARGE = 0xFFFFFFFF
"""In a field of 32 bits: the value is in the field for large archives."""

MOST = 250_000
"""Parts that an archive may have; each takes some memory."""


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """One part of an archive, by its line in the directory."""

    name: str
    size: int
    header: int
    """Where its local header begins."""
    crc: int
    """Where the directory has its CRC-32."""
    plain: bool
    """Whether it is neither compressed nor encrypted."""


@dataclass(frozen=True, slots=True)
class PartOffsets:
    """Where a part's bytes begin, and where its CRC-32 stands outside the directory."""

    begin: int
    crcs: tuple[int, ...]


def read_parts(file: BinaryIO, path: Path) -> list[ArchivePart]:
    """The parts in the order of the directory, which follow each other in the file.

    Raises:
        InputError: there is no directory, or it does not fit the file.
    """
    size = file.seek(0, 2)
    begin, length, count = _find_directory(file, size, path)
    if count > MOST:
        raise InputError(f"has {count:,} parts, more than {MOST:,}", file=path)
    file.seek(begin)
    data = file.read(length)
    try:
        parts = list(_parse_entries(data, begin, count))
    except (struct.error, IndexError, ValueError):
        raise _no_archive_error(path) from None
    return parts


def require_apart(parts: list[ArchivePart], size: int, path: Path) -> None:
    """Refuse an archive whose parts overlap, which would grow when it is read.

    Raises:
        InputError: they do.
    """
    total = sum(part.size for part in parts)
    if total > size:
        raise InputError(f"claims {total:,} bytes of parts in {size:,} bytes of file", file=path)
    position, names = 0, set()
    for part in sorted(parts, key=lambda part: part.header):
        if part.header < position or part.name in names:
            raise damaged_error(f"the part {part.name} is there twice or overlaps another", path)
        names.add(part.name)
        position = part.header + 30 + len(part.name) + part.size


def read_part_offsets(file: BinaryIO, part: ArchivePart, path: Path) -> PartOffsets:
    """Where the bytes of a part are, by its local header.

    Raises:
        InputError: the header is not that of the part.
    """
    file.seek(part.header)
    head = file.read(30)
    if len(head) < 30 or head[:4] != LOCAL:
        raise damaged_error(f"the part {part.name} is not where the directory says", path)
    flags, (name, extra) = struct.unpack_from("<H", head, 6)[0], struct.unpack_from("<2H", head, 26)
    if file.read(name) != part.name.encode("utf-8", "surrogateescape"):
        raise damaged_error(f"the part {part.name} is not where the directory says", path)
    begin = part.header + 30 + name + extra
    if begin + part.size > file.seek(0, 2):
        raise damaged_error(f"the part {part.name} is cut", path)
    if not flags & 8:  # else the CRC follows the bytes
        return PartOffsets(begin, (part.crc, part.header + 14))
    file.seek(begin + part.size)
    marked = file.read(4) == DESCRIPTOR
    return PartOffsets(begin, (part.crc, begin + part.size + 4) if marked else (part.crc,))


def _find_directory(file: BinaryIO, size: int, path: Path) -> tuple[int, int, int]:
    """Where the directory begins, its length and how many parts it has."""
    file.seek(max(0, size - 66_000))
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < 22:
        raise _no_archive_error(path)
    count, length, begin = struct.unpack_from("<H2L", tail, at + 10)
    if at >= 20 and tail[at - 20 : at - 16] == LOCATOR:
        file.seek(min(struct.unpack_from("<Q", tail, at - 12)[0], size))
        large = file.read(56)
        if len(large) < 56 or large[:4] != END64:
            raise _no_archive_error(path)
        count, length, begin = struct.unpack_from("<3Q", large, 32)
    if begin + length > size:
        raise _no_archive_error(path)
    return begin, length, count


def _parse_entries(data: bytes, begin: int, count: int) -> Iterator[ArchivePart]:
    at = 0
    for _ in range(count):
        if data[at : at + 4] != ENTRY:
            raise ValueError
        flags, method = struct.unpack_from("<2H", data, at + 8)
        packed, size, name, extra, comment = struct.unpack_from("<2L3H", data, at + 20)
        header = struct.unpack_from("<L", data, at + 42)[0]
        more = data[at + 46 + name : at + 46 + name + extra]
        size, packed, header = _read_large_fields([size, packed, header], more)
        text = data[at + 46 : at + 46 + name].decode("utf-8", "surrogateescape")
        plain = not method and not flags & 1 and size == packed
        yield ArchivePart(text, size, header, begin + at + 16, plain)
        at += 46 + name + extra + comment


def _read_large_fields(values: list[int], more: bytes) -> list[int]:
    """Size, packed size and place, from the field for large archives where they are there."""
    at = 0
    while at + 4 <= len(more) and LARGE in values:
        kind, length = struct.unpack_from("<2H", more, at)
        if kind == 1:
            found = iter(struct.unpack_from(f"<{length // 8}Q", more, at + 4))
            values = [next(found, value) if value == LARGE else value for value in values]
            break
        at += 4 + length
    return values


def _no_archive_error(path: Path) -> InputError:
    return damaged_error("the zip archive has no directory at its end", path)


ALIGNMENT = 64
"""Bytes, so that tensors can be mapped into memory."""


def open_zip(file: BinaryIO, path: Path) -> TorchFile:
    """The archive with its pickle read and its storages found.

    Raises:
        InputError: it is damaged, of another kind, or would grow when it is read.
    """
    parts = read_parts(file, path)
    _require_torch(parts, file.seek(0, 2), path)
    top = _find_top_folder(parts)
    by_name = {part.name: part for part in parts}
    pickle = by_name[f"{top}data.pkl"]
    begin = read_part_offsets(file, pickle, path).begin
    tensors = PickledTensors()
    with convert_pickle_errors(path):
        root = make_machine(_read_part(file, pickle, path), tensors, file.seek(0, 2)).run()
    order = by_name.get(f"{top}byteorder")
    swapped = order is not None and is_other_order(_read_part(file, order, path)[:10])
    stored = {key: _locate_storage(file, key, tensors, by_name.get(f"{top}data/{key}"), path)
              for key in tensors.storages}  # fmt: skip
    end = begin + pickle.size
    return TorchFile(
        format="zip",
        root=root,
        tensors=tensors,
        begin=begin,
        end=end,
        swapped=swapped,
        parts=stored,
    )


def write_zip(
    file: BinaryIO,
    out: BinaryIO,
    _: TorchFile,
    pickled: bytes,
    parts: Mapping[Storage, Tensor | None],
) -> None:
    """The archive with another pickle and these storages; those without bytes have their old ones.

    What else is in it stays, in its order; bytes begin at multiples of 64, as torch wants them.
    """
    there = read_parts(file, Path())
    top = _find_top_folder(there)
    names = {f"{top}data/{storage.key}": storage for storage in parts}
    with zipfile.ZipFile(out, "w") as archive:
        for part in there:
            if part.name == f"{top}data.pkl":
                _add(archive, part.name, pickled)
            elif (storage := names.pop(part.name, None)) is not None:
                _add_storage(archive, part.name, storage, parts[storage], file)
            elif not part.name.startswith(f"{top}data/"):
                _add(archive, part.name, _read_part(file, part, Path()))
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


def _locate_storage(
    file: BinaryIO, key: object, tensors: PickledTensors, part: ArchivePart | None, path: Path
) -> StoredPart:
    """Note where a storage lies; the part that it is in."""
    storage = tensors.storages[key]
    if part is None:
        raise damaged_error(f"the part of storage {key} is missing", path)
    if part.size < storage.nbytes and storage.doubt is None:
        raise damaged_error(
            f"storage {key!r} claims {storage.nbytes:,} bytes, {part.size:,} are stored", path
        )
    place = read_part_offsets(file, part, path)
    storage.begin = place.begin
    return StoredPart(part.size, place.crcs)


def _read_part(file: BinaryIO, part: ArchivePart, path: Path) -> bytes:
    file.seek(read_part_offsets(file, part, path).begin)
    return file.read(part.size)


def _require_torch(parts: list[ArchivePart], size: int, path: Path) -> None:
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
    if _find_top_folder(parts) is None:
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


def _find_top_folder(parts: list[ArchivePart]) -> str | None:
    """The folder in the archive that everything is in, with a slash behind it."""
    names = (part.name for part in parts if part.name.endswith("/data.pkl"))
    found = next((name for name in names if name.count("/") == 1), None)
    return found and found.removesuffix("data.pkl")


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
