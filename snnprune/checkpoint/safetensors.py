"""Safetensors: one file, in an order of our own, or an index in JSON beside its shards.

The format's own library sorts tensors when it writes; a pruned file keeps the order of its input.
An index has the form of Hugging Face: `{"metadata": {...}, "weight_map": {tensor: file}}`.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Contents
from snnprune.errors import InputError
from snnprune.errors.text import format_count, format_names
from snnprune.files.reading import (
    COPY_AGAIN,
    changed_error,
    hash_file,
    open_for_reading,
    require_regular_file,
)
from snnprune.files.writing import replace_file


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor in the order of its elements, (bytes,) uint8.

    Of a contiguous tensor it is the memory itself, to be read into.
    """
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # one element may have any stride, which a view of bytes does not take
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


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

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


@dataclass(frozen=True, kw_only=True)
class HeaderEntry:
    """One tensor's line in the header; `begin` and `end` in bytes after the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header whose every entry fits the file."""

    entries: tuple[HeaderEntry, ...]
    """In the order of the header's text."""
    metadata: dict[str, str]


def read_header(file: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of `size` bytes, leaving `file` at the first tensor.

    Raises:
        InputError: the header lies about the file, is not one, or lists no tensors.
    """
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
    return Header(entries=entries, metadata=metadata)


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
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _damaged_error(
            f"unknown dtype {dtype!r}", path, field=name, hint=f"known: {', '.join(DTYPES)}"
        )
    if not is_shape(shape):
        raise _damaged_error("its shape is not a list of sizes", path, field=name)
    begin, end = _parse_offsets(offsets, name, path)
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise _damaged_error(
            f"shape {shape} of {dtype} needs {needed:,} bytes, its offsets give {end - begin:,}",
            path,
            field=name,
        )
    return HeaderEntry(name=name, dtype=DTYPES[dtype], shape=tuple(shape), begin=begin, end=end)


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


DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(path: Path) -> Contents:
    """Everything in the file, in the order of its header.

    Raises:
        InputError: it is damaged or lies about itself.
    """
    with open_for_reading(path) as file:
        header = read_header(file, _measure_size(file), path)
        tensors = _make_empty_tensors(header, device="cpu")
        for entry in sorted(header.entries, key=lambda entry: entry.begin):
            if file.readinto(bytes_of(tensors[entry.name]).numpy().data) != entry.end - entry.begin:
                raise changed_error(path)
    return Contents(tensors=tensors, metadata=header.metadata)


def read_outline(path: Path) -> Contents:
    """The same with tensors on `meta`: the header is read, the data is not.

    Raises:
        InputError: the header does not fit the file.
    """
    with open_for_reading(path) as file:
        header = read_header(file, _measure_size(file), path)
    return Contents(tensors=_make_empty_tensors(header, device="meta"), metadata=header.metadata)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    within: Path | None = None,
) -> None:
    """Write the file whole or not at all, one tensor at a time; keys stay in the given order.

    The data lies in that order too, unless a tensor would then start at a multiple of less than
    its item size and could not be mapped: then wider items come first. `within` is as for
    `files.writing.replace_file`.

    Raises:
        InputError: a dtype or name has no place in the format.
        OutputError: `path` cannot be written.
    """
    order = _order_data(tensors)
    header = _encode_header(path, tensors, order, metadata)
    with replace_file(path, within=within) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in order:
            file.write(bytes_of(tensors[name].cpu()).numpy().data)


def _measure_size(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _make_empty_tensors(header: Header, device: str) -> dict[str, Tensor]:
    return {
        entry.name: torch.empty(entry.shape, dtype=entry.dtype, device=device)
        for entry in header.entries
    }


def _order_data(tensors: Mapping[str, Tensor]) -> list[str]:
    position = 0
    for tensor in tensors.values():
        if position % tensor.itemsize:
            return sorted(tensors, key=lambda name: -tensors[name].itemsize)
        position += tensor.nbytes
    return list(tensors)


def _encode_header(
    path: Path, tensors: Mapping[str, Tensor], order: Iterable[str], metadata: Mapping[str, str]
) -> bytes:
    begin, offsets = 0, {}
    for name in order:
        offsets[name] = [begin, begin + tensors[name].nbytes]
        begin += tensors[name].nbytes
    fields: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, tensor in tensors.items():
        _require_writable(path, name, tensor)
        fields[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets[name],
        }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def _require_writable(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPE_NAMES:
        raise InputError(
            f"a safetensors file cannot hold {tensor.dtype}",
            file=path,
            field=name,
            hint="convert the tensor or leave it out",
        )
    if name == METADATA:
        raise InputError("is a reserved name", file=path, field=name, hint="rename the tensor")


MAP = "weight_map"


def is_index(path: Path) -> bool:
    """Whether a file of JSON text has the table of an index."""
    if path.stat().st_size > HEADER_LIMIT:
        return False
    with open_for_reading(path) as file:
        return f'"{MAP}"'.encode() in file.read()


def read_shards(path: Path) -> Contents:
    """The tensors of all shards, in the order of the index.

    Raises:
        InputError: the index is no such table or names a file that it must not; a shard is
            missing or damaged, or holds other tensors than the index says.
    """
    return _gather_shards(path, read)


def read_shard_outlines(path: Path) -> Contents:
    """The same with tensors on `meta`: headers are read, data is not.

    Raises:
        InputError: as `read_shards`.
    """
    return _gather_shards(path, read_outline)


def list_shards(path: Path) -> list[Path]:
    """The index and its shards, these sorted by name.

    Raises:
        InputError: the index is no such table or names a file that it must not.
    """
    return [path, *_locate_shards(_read_weight_map(path), path).values()]


def hash_shards(path: Path) -> str:
    """The SHA-256 of the lines `HASH  NAME` that `sha256sum` writes of `list_shards`."""
    lines = [f"{hash_file(file)}  {file.name}\n" for file in list_shards(path)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _gather_shards(path: Path, read_shard: Callable[[Path], Contents]) -> Contents:
    where = _read_weight_map(path)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, shard in _locate_shards(where, path).items():
        contents = read_shard(shard)
        _require_as_indexed(contents.tensors, where, name, path)
        tensors |= contents.tensors
        metadata |= contents.metadata
    return Contents(tensors={key: tensors[key] for key in where}, metadata=metadata)


def _read_weight_map(path: Path) -> dict[str, str]:
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


def _locate_shards(where: dict[str, str], path: Path) -> dict[str, Path]:
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


def _require_as_indexed(
    held: dict[str, Tensor], where: dict[str, str], name: str, path: Path
) -> None:
    """A shard holds the tensors that the index has in it, and no others."""
    absent = [key for key, shard in where.items() if shard == name and key not in held]
    if absent:
        raise InputError(f"{name} does not hold {format_names(absent)}", file=path, field=MAP)
    for key in held:
        if where.get(key) != name:
            said = f"in {where[key]}" if key in where else "nowhere"
            raise InputError(f"{key} is in {name}, by the index {said}", file=path, field=MAP)
