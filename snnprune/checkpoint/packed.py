"""Packed files, without their zeros: what lies where, and how precise the values are.

A safetensors file in which each tensor that gets smaller by it is (bytes,) uint8 under its own
name: its values in ascending position, the low bits of their positions, the rest of these (see
`Positions`). The table under `snnprune.packed` in the metadata has what it takes to undo it:

    {"format": 1, "tensors": {NAME: {"dtype": "F32", "shape": [64, 32, 3, 3], "kept": 1843,
     "low": 3, "values": "exact"}}}

`dtype` is the one that the tensor had and will have, by its name in safetensors; `values` is
`exact` or the precision that the values were brought to. All other tensors are as they were.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.header import PACKED, MalformedJsonError, is_shape, parse
from snnprune.checkpoint.safetensors import DTYPES, bytes_of, name_type
from snnprune.errors import InputError

FORMAT = 1
AS_THEY_ARE = "exact"
INT8 = "int8"
FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = (AS_THEY_ARE, *FLOATS, INT8)
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
        dtype=name_type(tensor) or "",
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


MOST_LOW = 40  # bits; a gap is less than the tensor's size

Bits = npt.NDArray[np.uint8]
"""Packed eight to a byte, the first in the lowest bit."""


class MalformedPositionsError(Exception):
    """The bits are no positions; its message reads on from `the positions ...`."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Positions in a flat tensor, coded."""

    low: int
    """How many bits of each gap lie in `lowest`."""
    lowest: Bits
    unary: Bits

    @property
    def nbytes(self) -> int:
        """Of both streams."""
        return self.lowest.nbytes + self.unary.nbytes


def encode(kept: npt.NDArray[np.bool_]) -> Positions:
    """Code where `kept`, (n,), is True."""
    places = np.flatnonzero(kept)
    gaps = np.diff(places, prepend=-1) - 1
    low = _choose_low_bits(gaps)
    quotients = gaps >> low
    unary = np.zeros(int(quotients.sum()) + len(gaps), dtype=np.bool_)
    unary[np.cumsum(quotients + 1) - 1] = True
    lowest = (gaps[:, None] >> np.arange(low)) & 1
    return Positions(
        low=low,
        lowest=np.packbits(lowest.astype(np.bool_).reshape(-1), bitorder="little"),
        unary=np.packbits(unary, bitorder="little"),
    )


def decode(coded: Positions, count: int, size: int) -> npt.NDArray[np.int64]:
    """The `count` positions, each below `size`, in ascending order.

    Raises:
        MalformedPositionsError: there are others.
    """
    if not 0 <= coded.low <= MOST_LOW:
        raise MalformedPositionsError(f"have {coded.low} low bits")
    if len(coded.lowest) != count_low_bytes(count, coded.low):
        raise MalformedPositionsError("are of another length")
    ends = np.flatnonzero(np.unpackbits(coded.unary, bitorder="little"))
    if len(ends) != count:
        raise MalformedPositionsError(f"are {len(ends):,}, the values {count:,}")
    bits = np.unpackbits(coded.lowest, count=count * coded.low, bitorder="little")
    lowest = bits.reshape(count, coded.low).astype(np.int64) @ (1 << np.arange(coded.low))
    quotients = np.diff(ends, prepend=-1) - 1
    if count and int(quotients.max()) > size >> coded.low:
        raise MalformedPositionsError("lie outside the tensor")
    places = np.cumsum((quotients << coded.low) + lowest + 1) - 1
    if count and int(places[-1]) >= size:
        raise MalformedPositionsError("lie outside the tensor")
    return places


def count_low_bytes(count: int, low: int) -> int:
    """How long the stream of low bits is."""
    return -(-count * low // 8)


def count_entropy_bits(kept: int, size: int) -> float:
    """What it takes at least to say which `kept` of `size` places are taken, if all choices are
    as likely: log2 of the binomial coefficient, in bits.
    """
    natural = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return max(0.0, natural / math.log(2))


def _choose_low_bits(gaps: npt.NDArray[np.int64]) -> int:
    """How many low bits make the code shortest."""
    if not len(gaps):
        return 0
    longest = int(gaps.max()).bit_length()
    lengths = [len(gaps) * (1 + low) + int((gaps >> low).sum()) for low in range(longest + 1)]
    return int(np.argmin(lengths))


LARGEST = 127  # of int8, so that -w is as exact as w


class TooLargeError(Exception):
    """A value is outside what the precision can hold."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How values become bytes and bytes values again."""

    item: int
    """Bytes of a value."""
    scaled: bool
    """Whether each output channel has a float32 scale before the values."""
    encode: Callable[[Tensor, Tensor, int], Tensor]
    """From values (kept,), the channel of each, and how many channels there are, to bytes."""
    decode: Callable[[Tensor, Tensor, int], Tensor]
    """Back, to a dtype that holds all of them exactly."""

    def nbytes(self, kept: int, channels: int) -> int:
        """Of `kept` values."""
        return kept * self.item + (4 * channels if self.scaled else 0)


def coding_of(precision: str, dtype: torch.dtype) -> Coding:
    """The coding of values of a tensor of `dtype`; a precision is a key of PRECISIONS."""
    if precision == INT8:
        return Coding(item=1, scaled=True, encode=_to_int8, decode=_from_int8)
    stored = FLOATS.get(precision, dtype)
    return Coding(
        item=stored.itemsize,
        scaled=False,
        encode=lambda values, _, __: bytes_of(_narrow(values, stored)),
        decode=lambda raw, _, __: raw.clone().view(stored),
    )


def _narrow(values: Tensor, dtype: torch.dtype) -> Tensor:
    narrow = values.to(dtype)
    if bool((narrow.isinf() & ~values.isinf()).any()):
        raise TooLargeError
    return narrow


def _to_int8(values: Tensor, channel: Tensor, channels: int) -> Tensor:
    """w = scale_c * q, q in [-127, 127], scale_c = max |w| of the channel / 127."""
    values = values.float()
    largest = torch.zeros(channels).scatter_reduce(0, channel, values.abs(), "amax")
    if not bool(largest.isfinite().all()):
        raise TooLargeError
    scale = largest / LARGEST
    quantized = (values / scale[channel].clamp(min=torch.finfo(torch.float32).tiny)).round()
    whole = quantized.clamp(-LARGEST, LARGEST).to(torch.int8)
    return torch.cat([bytes_of(scale), bytes_of(whole)])


def _from_int8(raw: Tensor, channel: Tensor, channels: int) -> Tensor:
    scale = raw[: 4 * channels].clone().view(torch.float32)
    return raw[4 * channels :].clone().view(torch.int8).float() * scale[channel]
