"""Packed files as tensors: packed to a precision, and read; `packing` has what lies where."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.header import PACKED, TYPES, MalformedJsonError, is_shape, parse
from snnprune.checkpoint.packing import (
    AS_THEY_ARE,
    FLOATS,
    FORMAT,
    INT8,
    PRECISIONS,
    WORDS,
    MalformedPositionsError,
    Packable,
    PackedEntry,
    Packing,
    Positions,
    assemble_packing,
    count_channels,
    count_low_bytes,
    decode,
    pack_values,
)
from snnprune.checkpoint.safetensors import bytes_of, name_type, require_dtype, write_safetensors
from snnprune.errors import InputError

MOST_GROWTH, SMALL = 4096, 2**28
"""A file of b bytes may hold b * MOST_GROWTH bytes of tensors, or SMALL: else it is a bomb."""
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Of the size of a float, to look at its bits."""
Shape = tuple[int, ...]


def read_table(contents: Contents, path: Path) -> dict[str, PackedEntry]:
    """What the metadata says of each packed tensor.

    Raises:
        InputError: it is no table, of another format, or does not fit the tensors.
    """
    try:
        found = parse(contents.metadata[PACKED].encode("utf-8"))
    except MalformedJsonError as error:
        raise InputError(f"the text {error}", file=path, field=PACKED) from None
    if isinstance(found, dict) and found.get("format") not in (None, FORMAT):
        raise InputError(
            f"is of format {found['format']!r}, this snnprune reads {FORMAT}",
            file=path,
            field=PACKED,
            hint="update snnprune",
        )
    tensors = found.get("tensors") if isinstance(found, dict) else None
    if not isinstance(tensors, dict):
        raise InputError("is not a table of packed tensors", file=path, field=PACKED)
    return dict(_iter_entries(tensors, contents, path))


def _iter_entries(
    tensors: Mapping[str, Any], contents: Contents, path: Path
) -> Iterator[tuple[str, PackedEntry]]:
    for name, given in tensors.items():
        raw = contents.tensors.get(name)
        if raw is None or raw.dtype != torch.uint8 or raw.dim() != 1 or not _is_entry(given):
            raise InputError("does not fit its entry in the table", file=path, field=name)
        yield name, PackedEntry(**{**given, "shape": tuple(given["shape"])})


def _is_entry(given: Any) -> bool:
    fields = {"dtype": str, "shape": list, "kept": int, "low": int, "values": str}
    return (
        isinstance(given, dict)
        and given.keys() == fields.keys()
        and all(type(given[key]) is kind for key, kind in fields.items())
        and is_shape(given["shape"])
        and given["dtype"] in TYPES
        and TYPES[given["dtype"]].itemsize in WORDS
        and TYPES[given["dtype"]].is_floating_point
        and given["values"] in PRECISIONS
        and 0 <= given["kept"] <= math.prod(given["shape"])
        and given["low"] >= 0
    )


def require_no_bomb(contents: Contents, table: Mapping[str, PackedEntry], path: Path) -> None:
    """Refuse a small file that would fill the memory.

    Raises:
        InputError: it is one.
    """
    held = sum(tensor.nbytes for tensor in contents.tensors.values())
    whole = sum(entry.nbytes for entry in table.values())
    if whole > max(SMALL, held * MOST_GROWTH):
        raise InputError(
            f"{held:,} bytes claim to hold {whole:,}", file=path, hint="do not trust its source"
        )


def pack(
    tensors: Mapping[str, Tensor], *, precision: str = AS_THEY_ARE, lossy: Collection[str] = ()
) -> Packing[Tensor]:
    """Pack each float tensor that gets smaller by it, those in `lossy` to `precision`.

    Raises:
        InputError: a value is too large for the precision.
    """
    found = (
        (name, tensor, _pack_tensor(name, tensor, precision if name in lossy else AS_THEY_ARE))
        for name, tensor in tensors.items()
    )
    return assemble_packing(found, write_safetensors)


def read(path: Path) -> Contents:
    """The tensors of a safetensors file, unpacked where it is packed.

    Raises:
        InputError: it is damaged or lies about itself.
    """
    contents = safetensors.read(path)
    return contents if PACKED not in contents.metadata else _unpack_contents(contents, path)


def read_outline(path: Path) -> Contents:
    """The same with tensors on `meta`.

    Raises:
        InputError: the header does not fit the file.
    """
    contents = safetensors.read_outline(path)
    if PACKED not in contents.metadata:
        return contents
    return _replace_tensors(
        contents,
        {name: _make_empty(name, e, path) for name, e in read_table(contents, path).items()},
    )


def _pack_tensor(name: str, tensor: Tensor, precision: str) -> Packable[Tensor] | None:
    """The tensor packed; None where it is none that can be."""
    if not tensor.is_floating_point() or tensor.itemsize not in WORDS or not tensor.numel():
        return None
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # bit for bit, -0.0 is a value too
    kept = (flat.view(INTEGERS[flat.itemsize]) if precision == AS_THEY_ARE else flat) != 0
    places = np.flatnonzero(kept.numpy())
    where = torch.from_numpy(places)
    try:
        raw = coding_of(precision, tensor.dtype).encode(flat[where], where, tensor.shape)
    except TooLargeError:
        raise InputError(
            f"has values that {precision} cannot hold",
            field=name,
            hint="take another --values",
        ) from None
    entry, packed = pack_values(
        places,
        raw.numpy(),
        dtype=name_type(tensor) or "",
        shape=tuple(tensor.shape),
        precision=precision,
    )
    return entry, None if packed is None else torch.from_numpy(packed)


def _unpack_contents(contents: Contents, path: Path) -> Contents:
    table = read_table(contents, path)
    require_no_bomb(contents, table, path)
    return _replace_tensors(
        contents,
        {name: _restore_tensor(name, contents.tensors[name], e, path) for name, e in table.items()},
    )


def _replace_tensors(contents: Contents, whole: Mapping[str, Tensor]) -> Contents:
    metadata = {key: text for key, text in contents.metadata.items() if key != PACKED}
    tensors = {name: whole.get(name, tensor) for name, tensor in contents.tensors.items()}
    return replace(contents, tensors=tensors, metadata=metadata, packed=True)


def _make_empty(name: str, entry: PackedEntry, path: Path) -> Tensor:
    dtype = require_dtype(TYPES[entry.dtype], path, name)
    return torch.empty(entry.shape, dtype=dtype, device="meta")


def _restore_tensor(name: str, raw: Tensor, entry: PackedEntry, path: Path) -> Tensor:
    first, second = entry.count_value_bytes(), count_low_bytes(entry.kept, entry.low)
    if len(raw) < first + second:
        raise InputError("has fewer bytes than its table says", file=path, field=name)
    streams = raw.numpy()
    coded = Positions(
        low=entry.low,
        lowest=streams[first : first + second],
        unary=streams[first + second :],
    )
    try:
        places = torch.from_numpy(decode(coded, entry.kept, entry.size))
    except MalformedPositionsError as error:
        raise InputError(f"the positions of its values {error}", file=path, field=name) from None
    dtype = require_dtype(TYPES[entry.dtype], path, name)
    values = coding_of(entry.values, dtype).decode(raw[:first], places, entry.shape)
    flat = torch.zeros(entry.size, dtype=dtype)
    flat[places] = values.to(dtype)
    return flat.reshape(entry.shape)


LARGEST = 127  # of int8, so that -w is as exact as w


class TooLargeError(Exception):
    """A value is outside what the precision can hold."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How values become bytes and bytes values again."""

    encode: Callable[[Tensor, Tensor, Shape], Tensor]
    """From values (kept,), the position of each, and the shape of their tensor, to bytes."""
    decode: Callable[[Tensor, Tensor, Shape], Tensor]
    """Back, to a dtype that holds all of them exactly."""


def coding_of(precision: str, dtype: torch.dtype) -> Coding:
    """The coding of values of a tensor of `dtype`; a precision is one of PRECISIONS."""
    if precision == INT8:
        return Coding(encode=_to_int8, decode=_from_int8)
    stored = getattr(torch, precision) if precision in FLOATS else dtype
    return Coding(
        encode=lambda values, _, __: bytes_of(_narrow(values, stored)),
        decode=lambda raw, _, __: raw.clone().view(stored),
    )


def _narrow(values: Tensor, dtype: torch.dtype) -> Tensor:
    if values.dtype == dtype:
        return values
    narrow = values.to(dtype)
    if bool((narrow.isinf() & ~values.isinf()).any()):
        raise TooLargeError
    return narrow


def _to_int8(values: Tensor, places: Tensor, shape: Shape) -> Tensor:
    """w = scale_c * q, q in [-127, 127], scale_c = max |w| of the channel / 127."""
    values, channel = values.float(), _find_channels(places, shape)
    largest = torch.zeros(count_channels(shape)).scatter_reduce(0, channel, values.abs(), "amax")
    if not bool(largest.isfinite().all()):
        raise TooLargeError
    scale = largest / LARGEST
    quantized = (values / scale[channel].clamp(min=torch.finfo(torch.float32).tiny)).round()
    whole = quantized.clamp(-LARGEST, LARGEST).to(torch.int8)
    return torch.cat([bytes_of(scale), bytes_of(whole)])


def _from_int8(raw: Tensor, places: Tensor, shape: Shape) -> Tensor:
    ends = 4 * count_channels(shape)
    scale = raw[:ends].clone().view(torch.float32)
    return raw[ends:].clone().view(torch.int8).float() * scale[_find_channels(places, shape)]


def _find_channels(places: Tensor, shape: Shape) -> Tensor:
    """Which output each of these positions belongs to."""
    return places.div(math.prod(shape[1:]), rounding_mode="floor")
