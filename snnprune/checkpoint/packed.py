"""Packed files: what lies where, in writing and in reading.

A safetensors file in which each tensor that gets smaller by it is (bytes,) uint8 under its own
name: its values in ascending position, the low bits of their positions, the rest of these (see
`positions`). The table under `snnprune.packed` in the metadata has what it takes to undo it:

    {"format": 1, "tensors": {NAME: {"dtype": "F32", "shape": [64, 32, 3, 3], "kept": 1843,
     "low": 3, "values": "exact"}}}

`dtype` is the one that the tensor had and will have, by its name in safetensors; `values` is
`exact` or the precision that the values were brought to. All other tensors are as they were.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.packed_values import (
    AS_THEY_ARE,
    PRECISIONS,
    MalformedPositionsError,
    Positions,
    TooLargeError,
    coding_of,
    count_entropy_bits,
    count_low_bytes,
    decode,
    encode,
)
from snnprune.checkpoint.safetensors import DTYPES, MalformedJsonError, is_shape, parse
from snnprune.errors import InputError

PACKED = "snnprune.packed"
FORMAT = 1
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of the size of a float, to look at its bits."""
MOST_GROWTH, SMALL = 4096, 2**28
"""A file of b bytes may hold b * MOST_GROWTH bytes of tensors, or SMALL: else it is a bomb."""


@dataclass(frozen=True, kw_only=True)
class PackedEntry:
    """What the table says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    kept: int
    """How many values are not 0; if `exact`, -0.0 is one of them."""
    low: int
    values: str

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """How many outputs a weight has."""
        return self.shape[0] if self.shape else 1

    def count_value_bytes(self) -> int:
        """Of its values, and their scales."""
        return coding_of(self.values, DTYPES[self.dtype]).nbytes(self.kept, self.channels)

    def compute_bound(self) -> float:
        """Bytes that its values, and the entropy of where they stand, take at least."""
        return self.count_value_bytes() + count_entropy_bits(self.kept, self.size) / 8


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
        and given["dtype"] in DTYPES
        and DTYPES[given["dtype"]].itemsize in WORDS
        and DTYPES[given["dtype"]].is_floating_point
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
    whole = sum(entry.size * DTYPES[entry.dtype].itemsize for entry in table.values())
    if whole > max(SMALL, held * MOST_GROWTH):
        raise InputError(
            f"{held:,} bytes claim to hold {whole:,}", file=path, hint="do not trust its source"
        )


ENTRY = 150  # bytes of header and table that a packed tensor takes, next to enough


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Tensors as they are stored, in the order in which they were given."""

    stored: dict[str, Tensor]
    table: dict[str, PackedEntry]
    """Of those that are packed, by name."""
    bound: float
    """Bytes that all of them take at least, packed or not: see `PackedEntry`."""

    def count_bytes(self) -> int:
        """Of all of them, as they are stored."""
        return sum(tensor.nbytes for tensor in self.stored.values())

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            InputError: a dtype or name has no place in the format.
            OutputError: `path` cannot be written.
        """
        table = {name: asdict(entry) for name, entry in self.table.items()}
        text = json.dumps({"format": FORMAT, "tensors": table}, separators=(",", ":"))
        safetensors.write_safetensors(path, self.stored, {PACKED: text, **metadata})


def pack(
    tensors: Mapping[str, Tensor], *, precision: str = AS_THEY_ARE, lossy: Collection[str] = ()
) -> Packing:
    """Pack each float tensor that gets smaller by it, those in `lossy` to `precision`.

    Raises:
        InputError: a value is too large for the precision.
    """
    stored, table, bound = {}, {}, 0.0
    for name, tensor in tensors.items():
        found = _pack_tensor(name, tensor, precision if name in lossy else AS_THEY_ARE)
        bound += tensor.nbytes if found is None else min(tensor.nbytes, found[0].compute_bound())
        if found is None or found[1].nbytes + ENTRY >= tensor.nbytes:
            stored[name] = tensor
        else:
            table[name], stored[name] = found
    return Packing(stored=stored, table=table, bound=bound)


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
        contents, {name: _make_empty(e) for name, e in read_table(contents, path).items()}
    )


def _pack_tensor(name: str, tensor: Tensor, precision: str) -> tuple[PackedEntry, Tensor] | None:
    """A tensor's entry and bytes; None where it is none that can be packed."""
    if not tensor.is_floating_point() or tensor.itemsize not in WORDS or not tensor.numel():
        return None
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # bit for bit, -0.0 is a value too
    kept = (flat.view(WORDS[flat.itemsize]) if precision == AS_THEY_ARE else flat) != 0
    positions = encode(kept.numpy())
    entry = PackedEntry(
        dtype=safetensors.DTYPE_NAMES[tensor.dtype],
        shape=tuple(tensor.shape),
        kept=int(kept.sum()),
        low=positions.low,
        values=precision,
    )
    values, channel = flat[kept], _find_channels(entry, kept.nonzero().flatten())
    try:
        raw = coding_of(precision, tensor.dtype).encode(values, channel, entry.channels)
    except TooLargeError:
        raise InputError(
            f"has values that {precision} cannot hold",
            field=name,
            hint="take another --values",
        ) from None
    streams = (positions.lowest, positions.unary)
    return entry, torch.cat([raw, *(torch.from_numpy(stream) for stream in streams)])


def _find_channels(entry: PackedEntry, places: Tensor) -> Tensor:
    """Which output each of these positions belongs to."""
    return places.div(entry.size // entry.channels, rounding_mode="floor")


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


def _make_empty(entry: PackedEntry) -> Tensor:
    return torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta")


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
    dtype = DTYPES[entry.dtype]
    coding = coding_of(entry.values, dtype)
    values = coding.decode(raw[:first], _find_channels(entry, places), entry.channels)
    flat = torch.zeros(entry.size, dtype=dtype)
    flat[places] = values.to(dtype)
    return flat.reshape(entry.shape)
