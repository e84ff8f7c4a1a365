"""The header of a safetensors file, believed only where it fits the bytes.

Layout: 8 bytes header length N, little-endian; N bytes of JSON, `{name: {"dtype", "shape",
"data_offsets": [begin, end]}}` with text under `__metadata__`; then the tensors' bytes without
holes, offsets counted from there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from snnprune.checkpoint.containers.safetensors.strict_json import MalformedJsonError, parse
from snnprune.checkpoint.naming import counted
from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN

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
class Entry:
    """One tensor's line in the header; `begin` and `end` in bytes after the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header whose every entry fits the file."""

    entries: tuple[Entry, ...]
    """In the order of the header's text."""
    metadata: dict[str, str]


def read_header(file: BinaryIO, size: int, path: Path) -> Header:
    """The header of a file of `size` bytes, leaving `file` at the first tensor.

    Raises:
        InputError: the header lies about the file, is not one, or lists no tensors.
    """
    length = _header_length(file.read(8), size, path)
    try:
        value = parse(file.read(length))
    except MalformedJsonError as error:
        raise _damaged(f"the header {error}", path) from None
    if not isinstance(value, dict):
        raise _damaged("the header is not a table of tensors", path)
    metadata = _metadata(value.pop(METADATA, {}), path)
    entries = tuple(_entry(name, fields, path) for name, fields in value.items())
    if not entries:
        raise _damaged("holds no tensors", path, hint="was an empty state_dict saved?")
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


def _header_length(prefix: bytes, size: int, path: Path) -> int:
    if len(prefix) < 8:
        raise _damaged(f"truncated: {size} of at least 8 bytes", path)
    length = int.from_bytes(prefix, "little")
    if length > HEADER_LIMIT:
        raise _damaged(
            f"claims a header of {length:,} bytes, more than the {HEADER_LIMIT:,} allowed",
            path,
        )
    if 8 + length > size:
        raise _damaged(
            f"truncated: {size:,} of at least {8 + length:,} bytes, by its header length",
            path,
        )
    return length


def _metadata(value: object, path: Path) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    raise _damaged("is not a table of strings", path, field=METADATA)


def _entry(name: str, fields: Any, path: Path) -> Entry:
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
        raise _damaged("lacks a dtype, shape or data_offsets", path, field=name)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _damaged(
            f"unknown dtype {dtype!r}", path, field=name, hint=f"known: {', '.join(DTYPES)}"
        )
    if not is_shape(shape):
        raise _damaged("its shape is not a list of sizes", path, field=name)
    begin, end = _offsets(offsets, name, path)
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise _damaged(
            f"shape {shape} of {dtype} needs {needed:,} bytes, its offsets give {end - begin:,}",
            path,
            field=name,
        )
    return Entry(name=name, dtype=DTYPES[dtype], shape=tuple(shape), begin=begin, end=end)


def _offsets(offsets: Any, name: str, path: Path) -> tuple[int, int]:
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _damaged("its offsets are not two positions", path, field=name)
    begin, end = offsets
    if begin > end:
        raise _damaged(f"its offsets {begin:,} to {end:,} are reversed", path, field=name)
    return begin, end


def _require_seamless(entries: Sequence[Entry], path: Path) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            gap = entry.begin - position
            fault = f"leaves a hole of {gap:,}" if gap > 0 else f"overlaps the {-gap:,}"
            raise _damaged(f"{fault} bytes before it", path, field=entry.name)
        position = entry.end


def _require_size(expected: int, size: int, path: Path) -> None:
    if size < expected:
        raise _damaged(f"truncated: {size:,} of {expected:,} bytes", path)
    if size > expected:
        extra = counted(size - expected, "extra byte")
        raise _damaged(f"{extra} after the last tensor", path)


def _damaged(
    message: str, path: Path, field: str | None = None, hint: str = COPY_AGAIN
) -> InputError:
    return InputError(message, file=path, field=field, hint=hint)
