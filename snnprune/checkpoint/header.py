"""The header of a safetensors file, and the index of several: what is where. Imports no torch.

An index has the form of Hugging Face: `{"metadata": {...}, "weight_map": {tensor: file}}`.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from snnprune.errors import InputError, format_count, format_names
from snnprune.files.reading import (
    COPY_AGAIN,
    hash_file,
    open_for_reading,
    require_regular_file,
)


class MalformedJsonError(Exception):
    """The text is not JSON that means one thing; its message reads on from `the header ...`."""


def parse(data: bytes) -> Any:
    """The value that `data` spells, in UTF-8 and with no name twice in one object.

    Raises:
        MalformedJsonError: it does not spell one.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise MalformedJsonError("starts with a byte order mark")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_build_unique_dict)
        if rb"\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise MalformedJsonError("is not UTF-8") from None
    except UnicodeEncodeError:
        raise MalformedJsonError("holds half a surrogate pair") from None
    except RecursionError:
        raise MalformedJsonError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise MalformedJsonError(f"is not JSON: {error.msg} (character {error.pos})") from None
    except ValueError:  # what Python says to an integer of thousands of digits
        raise MalformedJsonError("holds a number of too many digits") from None
    return value


def _build_unique_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise MalformedJsonError(f"has the name {name!r} twice")
        value[name] = item
    return value


HEADER_LIMIT = 100_000_000
"""Bytes; the limit of the format's reference implementation."""

METADATA = "__metadata__"
PACKED = "snnprune.packed"
"""In the metadata of a file without its zeros; see `packing`."""
SHAPES = "snnprune.shapes"
PARTNER = "snnprune.pruned_sha256"
"""In the metadata of a mask file: the shapes of its masks, and the hash of the file they are of."""


@dataclass(frozen=True)
class StoredType:
    """A type of the format; its text is how torch spells it."""

    name: str
    itemsize: int

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds real numbers that are no integers."""
        return self.name.startswith(("float", "bfloat"))

    def __str__(self) -> str:
        return self.name


TYPES = {
    "BOOL": StoredType("bool", 1),
    "U8": StoredType("uint8", 1),
    "I8": StoredType("int8", 1),
    "U16": StoredType("uint16", 2),
    "I16": StoredType("int16", 2),
    "U32": StoredType("uint32", 4),
    "I32": StoredType("int32", 4),
    "U64": StoredType("uint64", 8),
    "I64": StoredType("int64", 8),
    "F8_E4M3": StoredType("float8_e4m3fn", 1),
    "F8_E5M2": StoredType("float8_e5m2", 1),
    "F8_E4M3FNUZ": StoredType("float8_e4m3fnuz", 1),
    "F8_E5M2FNUZ": StoredType("float8_e5m2fnuz", 1),
    "F8_E8M0": StoredType("float8_e8m0fnu", 1),
    "F16": StoredType("float16", 2),
    "BF16": StoredType("bfloat16", 2),
    "F32": StoredType("float32", 4),
    "F64": StoredType("float64", 8),
    "C64": StoredType("complex64", 8),
}
"""By the name that the format has for it."""
NAMES = {kind.name: name for name, kind in TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class HeaderEntry:
    """One tensor's line in the header; `begin` and `end` in bytes after the header."""

    name: str
    dtype: StoredType
    shape: tuple[int, ...]
    begin: int
    end: int

    def dim(self) -> int:
        """As of a tensor."""
        return len(self.shape)

    def numel(self) -> int:
        """As of a tensor."""
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        """As of a tensor."""
        return self.dtype.is_floating_point

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header whose every entry fits the file."""

    entries: tuple[HeaderEntry, ...]
    """In the order of the header's text."""
    metadata: dict[str, str]
    start: int
    """Where the first tensor begins in the file."""


def read_header(file: BinaryIO, path: Path) -> Header:
    """The header of an open file, which is left at its first tensor.

    Raises:
        InputError: the header lies about the file, is not one, or lists no tensors.
    """
    size = os.fstat(file.fileno()).st_size
    length = _read_header_length(file.read(8), size, path)
    try:
        value = parse(file.read(length))
    except MalformedJsonError as error:
        raise _damaged_error(f"the header {error}", path) from None
    if not isinstance(value, dict):
        raise _damaged_error("the header is not a table of tensors", path)
    metadata = _parse_metadata(value.pop(METADATA, {}), path)
    entries = tuple(_parse_entry(name, fields, path) for name, fields in value.items())
    if not entries:
        raise _damaged_error("holds no tensors", path, hint="was an empty state_dict saved?")
    _require_seamless(entries, path)
    _require_size(8 + length + max(entry.end for entry in entries), size, path)
    return Header(entries=entries, metadata=metadata, start=8 + length)


def read_file_header(path: Path) -> Header:
    """The header of the file at `path`.

    Raises:
        InputError: the file cannot be read, or as `read_header`.
    """
    with open_for_reading(path) as file:
        return read_header(file, path)


def is_shape(value: object) -> bool:
    """Whether `value` is a list of sizes that a tensor can have."""
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(_is_size(size) for size in value)
        and math.prod(max(size, 1) for size in value) < 2**59  # in bytes, still 63 bits
    )


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _read_header_length(prefix: bytes, size: int, path: Path) -> int:
    if len(prefix) < 8:
        raise _damaged_error(f"truncated: {size} of at least 8 bytes", path)
    length = int.from_bytes(prefix, "little")
    if length > HEADER_LIMIT:
        raise _damaged_error(
            f"claims a header of {length:,} bytes, more than the {HEADER_LIMIT:,} allowed",
            path,
        )
    if 8 + length > size:
        raise _damaged_error(
            f"truncated: {size:,} of at least {8 + length:,} bytes, by its header length",
            path,
        )
    return length


def _parse_metadata(value: object, path: Path) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    raise _damaged_error("is not a table of strings", path, field=METADATA)


def _parse_entry(name: str, fields: Any, path: Path) -> HeaderEntry:
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
        raise _damaged_error("lacks a dtype, shape or data_offsets", path, field=name)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise _damaged_error(
            f"unknown dtype {dtype!r}", path, field=name, hint=f"known: {', '.join(TYPES)}"
        )
    if not is_shape(shape):
        raise _damaged_error("its shape is not a list of sizes", path, field=name)
    begin, end = _parse_offsets(offsets, name, path)
    needed = math.prod(shape) * TYPES[dtype].itemsize
    if end - begin != needed:
        raise _damaged_error(
            f"shape {shape} of {dtype} needs {needed:,} bytes, its offsets give {end - begin:,}",
            path,
            field=name,
        )
    return HeaderEntry(name=name, dtype=TYPES[dtype], shape=tuple(shape), begin=begin, end=end)


def _parse_offsets(offsets: Any, name: str, path: Path) -> tuple[int, int]:
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _damaged_error("its offsets are not two positions", path, field=name)
    begin, end = offsets
    if begin > end:
        raise _damaged_error(f"its offsets {begin:,} to {end:,} are reversed", path, field=name)
    return begin, end


def _require_seamless(entries: Sequence[HeaderEntry], path: Path) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            gap = entry.begin - position
            fault = f"leaves a hole of {gap:,}" if gap > 0 else f"overlaps the {-gap:,}"
            raise _damaged_error(f"{fault} bytes before it", path, field=entry.name)
        position = entry.end


def _require_size(expected: int, size: int, path: Path) -> None:
    if size < expected:
        raise _damaged_error(f"truncated: {size:,} of {expected:,} bytes", path)
    if size > expected:
        extra = format_count(size - expected, "extra byte")
        raise _damaged_error(f"{extra} after the last tensor", path)


def _damaged_error(
    message: str, path: Path, field: str | None = None, hint: str = COPY_AGAIN
) -> InputError:
    return InputError(message, file=path, field=field, hint=hint)


Slot = tuple[str, tuple[int, ...]]
"""The name of a type in the format, and a shape."""


def plan_header(
    tensors: Mapping[str, Slot], metadata: Mapping[str, str]
) -> tuple[bytes, tuple[str, ...]]:
    """The first bytes of a file, up to the first tensor, and the order of the data after them.

    It is that of `tensors`, unless one would then start at a multiple of less than its item size
    and could not be mapped: then wider items come first.
    """
    widths = {name: TYPES[kind].itemsize for name, (kind, _) in tensors.items()}
    sizes = {name: widths[name] * math.prod(shape) for name, (_, shape) in tensors.items()}
    order = _order_data(widths, sizes)
    begin, offsets = 0, {}
    for name in order:
        offsets[name] = [begin, begin + sizes[name]]
        begin += sizes[name]
    fields: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, (kind, shape) in tensors.items():
        fields[name] = {"dtype": kind, "shape": list(shape), "data_offsets": offsets[name]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def _order_data(widths: Mapping[str, int], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The names, `widths` being the bytes of an item, `sizes` those of a tensor."""
    position = 0
    for name, size in sizes.items():
        if position % widths[name]:
            return tuple(sorted(widths, key=lambda name: -widths[name]))
        position += size
    return tuple(sizes)


MAP = "weight_map"


def is_index(path: Path) -> bool:
    """Whether a file of JSON text has the table of an index."""
    if path.stat().st_size > HEADER_LIMIT:
        return False
    with open_for_reading(path) as file:
        return f'"{MAP}"'.encode() in file.read()


def read_shard_headers(path: Path) -> tuple[tuple[str, ...], dict[Path, Header]]:
    """The names of all tensors in the order of an index, and the header of each of its files.

    Raises:
        InputError: the index is no such table or names a file that it must not; a shard is
            missing or damaged, or holds other tensors than the index says.
    """
    where, headers = read_weight_map(path), dict[Path, Header]()
    for name, shard in locate_shards(where, path).items():
        headers[shard] = read_file_header(shard)
        require_as_indexed((one.name for one in headers[shard].entries), where, name, path)
    return tuple(where), headers


def list_shards(path: Path) -> list[Path]:
    """The index and its shards, these sorted by name.

    Raises:
        InputError: the index is no such table or names a file that it must not.
    """
    return [path, *locate_shards(read_weight_map(path), path).values()]


def hash_shards(path: Path) -> str:
    """The SHA-256 of the lines `HASH  NAME` that `sha256sum` writes of `list_shards`."""
    lines = [f"{hash_file(file)}  {file.name}\n" for file in list_shards(path)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def read_weight_map(path: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    require_regular_file(path)
    with open_for_reading(path) as file:
        text = file.read(HEADER_LIMIT + 1)
    try:
        index = parse(text)
    except MalformedJsonError as error:
        raise InputError(f"the index {error}", file=path, hint=COPY_AGAIN) from None
    where = index.get(MAP) if isinstance(index, dict) else None
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise InputError("is not a table from tensor to file", file=path, field=MAP)
    if not where:
        raise InputError("names no tensors", file=path, field=MAP)
    return where


def locate_shards(where: dict[str, str], path: Path) -> dict[str, Path]:
    """The files that the index names, each of them safe to open."""
    return {name: _locate_shard(name, path) for name in sorted(set(where.values()))}


def _locate_shard(name: str, path: Path) -> Path:
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", name):
        raise _shard_error(name, path, "is a URL, not a file beside the index")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise _shard_error(name, path, "is an absolute path, not a file beside the index")
    folder, shard = path.parent.resolve(), path.parent / name
    try:
        inside, there = shard.resolve().is_relative_to(folder), shard.exists()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null byte, a name too long
        inside = there = False
    if not inside:
        raise _shard_error(name, path, "does not lie in the folder of the index")
    if shard.is_dir():
        raise _shard_error(name, path, "is a folder")
    if not there:
        raise _shard_error(
            name, path, "is not there", "all shards lie beside the index: copy them all"
        )
    require_regular_file(shard)
    return shard


def _shard_error(
    name: str, path: Path, why: str, hint: str = "copy the shards into one folder"
) -> InputError:
    return InputError(f"the shard {name} {why}", file=path, field=MAP, hint=hint)


def require_as_indexed(held: Iterable[str], where: dict[str, str], name: str, path: Path) -> None:
    """A shard holds the tensors that the index has in it, and no others."""
    held = list(held)
    absent = [key for key, shard in where.items() if shard == name and key not in set(held)]
    if absent:
        raise InputError(f"{name} does not hold {format_names(absent)}", file=path, field=MAP)
    for key in held:
        if where.get(key) != name:
            said = f"in {where[key]}" if key in where else "nowhere"
            raise InputError(f"{key} is in {name}, by the index {said}", file=path, field=MAP)
