"""The directory of a zip archive, believed only where it fits the file.

Read here and not by `zipfile`, because a file that is written again needs the places of the CRCs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from snnprune.checkpoint.containers.torch.formats.opened import damaged
from snnprune.errors import InputError

END, END64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ENTRY, LOCAL, DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"

LARGE = 0xFFFFFFFF
"""In a field of 32 bits: the value is in the field for large archives."""

MOST = 250_000
"""Parts that an archive may have; each takes some memory."""


@dataclass(frozen=True, slots=True)
class Part:
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
class Place:
    """Where a part's bytes begin, and where its CRC-32 stands outside the directory."""

    begin: int
    crcs: tuple[int, ...]


def parts_of(file: BinaryIO, path: Path) -> list[Part]:
    """The parts in the order of the directory, which follow each other in the file.

    Raises:
        InputError: there is no directory, or it does not fit the file.
    """
    size = file.seek(0, 2)
    begin, length, count = _directory(file, size, path)
    if count > MOST:
        raise InputError(f"has {count:,} parts, more than {MOST:,}", file=path)
    file.seek(begin)
    data = file.read(length)
    try:
        parts = list(_entries(data, begin, count))
    except (struct.error, IndexError, ValueError):
        raise _none(path) from None
    return parts


def require_apart(parts: list[Part], size: int, path: Path) -> None:
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
            raise damaged(f"the part {part.name} is there twice or overlaps another", path)
        names.add(part.name)
        position = part.header + 30 + len(part.name) + part.size


def place_of(file: BinaryIO, part: Part, path: Path) -> Place:
    """Where the bytes of a part are, by its local header.

    Raises:
        InputError: the header is not that of the part.
    """
    file.seek(part.header)
    head = file.read(30)
    if len(head) < 30 or head[:4] != LOCAL:
        raise damaged(f"the part {part.name} is not where the directory says", path)
    flags, (name, extra) = struct.unpack_from("<H", head, 6)[0], struct.unpack_from("<2H", head, 26)
    if file.read(name) != part.name.encode("utf-8", "surrogateescape"):
        raise damaged(f"the part {part.name} is not where the directory says", path)
    begin = part.header + 30 + name + extra
    if begin + part.size > file.seek(0, 2):
        raise damaged(f"the part {part.name} is cut", path)
    if not flags & 8:  # else the CRC follows the bytes
        return Place(begin, (part.crc, part.header + 14))
    file.seek(begin + part.size)
    marked = file.read(4) == DESCRIPTOR
    return Place(begin, (part.crc, begin + part.size + 4) if marked else (part.crc,))


def _directory(file: BinaryIO, size: int, path: Path) -> tuple[int, int, int]:
    """Where the directory begins, its length and how many parts it has."""
    file.seek(max(0, size - 66_000))
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < 22:
        raise _none(path)
    count, length, begin = struct.unpack_from("<H2L", tail, at + 10)
    if at >= 20 and tail[at - 20 : at - 16] == LOCATOR:
        file.seek(min(struct.unpack_from("<Q", tail, at - 12)[0], size))
        large = file.read(56)
        if len(large) < 56 or large[:4] != END64:
            raise _none(path)
        count, length, begin = struct.unpack_from("<3Q", large, 32)
    if begin + length > size:
        raise _none(path)
    return begin, length, count


def _entries(data: bytes, begin: int, count: int) -> Iterator[Part]:
    at = 0
    for _ in range(count):
        if data[at : at + 4] != ENTRY:
            raise ValueError
        flags, method = struct.unpack_from("<2H", data, at + 8)
        packed, size, name, extra, comment = struct.unpack_from("<2L3H", data, at + 20)
        header = struct.unpack_from("<L", data, at + 42)[0]
        more = data[at + 46 + name : at + 46 + name + extra]
        size, packed, header = _large([size, packed, header], more)
        text = data[at + 46 : at + 46 + name].decode("utf-8", "surrogateescape")
        plain = not method and not flags & 1 and size == packed
        yield Part(text, size, header, begin + at + 16, plain)
        at += 46 + name + extra + comment


def _large(values: list[int], more: bytes) -> list[int]:
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


def _none(path: Path) -> InputError:
    return damaged("the zip archive has no directory at its end", path)
