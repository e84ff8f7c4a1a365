"""Packed files, without their zeros: what lies where, and one made of another file. No torch.

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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from snnprune.checkpoint.header import NAMES, PACKED, TYPES, Slot, plan_header
from snnprune.checkpoint.naming import ValueCounts
from snnprune.checkpoint.stored import (
    Bits,
    Piece,
    PieceReader,
    StoredCheckpoint,
    StoredTensor,
    count_piece,
    count_pieces,
    cut_into_pieces,
    map_pieces,
    merge_counts,
)

FORMAT = 1
AS_THEY_ARE = "exact"
INT8 = "int8"
FLOATS = ("float32", "float16", "bfloat16")
PRECISIONS = (AS_THEY_ARE, *FLOATS, INT8)
WORDS = (2, 4, 8)
"""Bytes of the floats that can be packed."""
ENTRY = 150  # bytes of header and table that a packed tensor takes, next to enough

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
"""Positions in a flat tensor, ascending."""


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
    def nbytes(self) -> int:
        """How many bytes it takes unpacked."""
        return self.size * TYPES[self.dtype].itemsize

    def count_value_bytes(self) -> int:
        """Of its values, and of `int8` a float32 scale for each output channel before them."""
        if self.values == INT8:
            return self.kept + 4 * count_channels(self.shape)
        kind = self.dtype if self.values == AS_THEY_ARE else NAMES[self.values]
        return self.kept * TYPES[kind].itemsize

    def compute_bound(self) -> float:
        """Bytes that its values, and the entropy of where they stand, take at least."""
        return self.count_value_bytes() + count_entropy_bits(self.kept, self.size) / 8


def count_channels(shape: tuple[int, ...]) -> int:
    """How many outputs a weight has."""
    return shape[0] if shape else 1


class Stored(Protocol):
    """A tensor, in memory or in a file."""

    @property
    def nbytes(self) -> int:
        """How many bytes its values take."""
        ...


T = TypeVar("T", bound=Stored)
Packable = tuple[PackedEntry, T | None]
"""A tensor's entry and bytes; None in place of these where they and the entry take no less."""


@dataclass(frozen=True, kw_only=True)
class Packing(Generic[T]):
    """Tensors as they are stored, in the order in which they were given."""

    stored: dict[str, T]
    table: dict[str, PackedEntry]
    """Of those that are packed, by name."""
    bound: float
    """Bytes that all of them take at least, packed or not: see `PackedEntry`."""
    write_file: Callable[[Path, Mapping[str, T], Mapping[str, str]], None]
    """Makes a file of what is stored, and of metadata."""

    def count_bytes(self) -> int:
        """Of all of them, as they are stored."""
        return sum(tensor.nbytes for tensor in self.stored.values())

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the file, as `write_file` does."""
        table = {name: asdict(entry) for name, entry in self.table.items()}
        text = json.dumps({"format": FORMAT, "tensors": table}, separators=(",", ":"))
        self.write_file(path, self.stored, {PACKED: text, **metadata})


def assemble_packing(
    found: Iterable[tuple[str, T, Packable[T] | None]],
    write_file: Callable[[Path, Mapping[str, T], Mapping[str, str]], None],
) -> Packing[T]:
    """The packing of tensors by name, each as it is and, if it can be, packed."""
    stored, table, bound = dict[str, T](), dict[str, PackedEntry](), 0.0
    for name, whole, packable in found:
        entry, packed = packable or (None, None)
        bound += min(whole.nbytes, entry.compute_bound()) if entry else whole.nbytes
        stored[name] = whole if packed is None else packed
        if entry is not None and packed is not None:
            table[name] = entry
    return Packing(stored=stored, table=table, bound=bound, write_file=write_file)


def pack_values(
    places: Places, values: Bytes, *, dtype: str, shape: tuple[int, ...], precision: str
) -> Packable[Bytes]:
    """Pack a tensor, from where its values stand and what they are kept as."""
    entry = PackedEntry(dtype=dtype, shape=shape, kept=len(places), low=0, values=precision)
    least = len(places) // 8  # bytes: a position has one bit and more
    if len(values) + least + ENTRY >= entry.nbytes:
        return entry, None
    positions = encode(places)
    if len(values) + positions.nbytes + ENTRY >= entry.nbytes:
        return entry, None
    packed = np.concatenate([values, positions.lowest, positions.unary])
    return replace(entry, low=positions.low), packed


MOST_LOW = 40  # bits; a gap is less than the tensor's size
CHUNK = 2**15  # gaps; a multiple of 8, so that the low bits of each chunk are whole bytes


class MalformedPositionsError(Exception):
    """The bits are no positions; its message reads on from `the positions ...`."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Positions in a flat tensor, coded."""

    low: int
    """How many bits of each gap lie in `lowest`."""
    lowest: Bytes
    """Eight bits to a byte, the first in the lowest; so in `unary`."""
    unary: Bytes

    @property
    def nbytes(self) -> int:
        """Of both streams."""
        return self.lowest.nbytes + self.unary.nbytes


def encode(places: Places) -> Positions:
    """Code positions, (kept,)."""
    gaps = np.diff(places, prepend=-1)
    gaps -= 1
    low, rest = _choose_low_bits(gaps)
    unary, done = np.zeros(rest + len(gaps), dtype=np.bool_), 0
    lowest = np.empty(count_low_bytes(len(gaps), low), dtype=np.uint8)
    for first, some in _iter_chunks(gaps):
        ends = np.cumsum((some >> low) + 1) + (done - 1)
        unary[ends] = True
        done = int(ends[-1]) + 1
        bits = np.empty((len(some), low), dtype=np.uint8)
        for bit in range(low):
            bits[:, bit] = some >> bit & 1
        packed = np.packbits(bits.reshape(-1), bitorder="little")
        lowest[first * low // 8 :][: len(packed)] = packed
    return Positions(low=low, lowest=lowest, unary=np.packbits(unary, bitorder="little"))


def decode(coded: Positions, count: int, size: int) -> Places:
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


def _choose_low_bits(gaps: Places) -> tuple[int, int]:
    """How many low bits make the code shortest, and what the rest of all gaps adds up to then.

    One bit more costs one for each gap and saves half of its rest, rounded up: ever less. So the
    first bit that saves no more than it costs is one too many.
    """
    low, rest = 0, int(gaps.sum())
    while (shorter := _sum_shifted(gaps, low + 1)) + len(gaps) < rest:
        low, rest = low + 1, shorter
    return low, rest


def _sum_shifted(gaps: Places, low: int) -> int:
    return sum(int((some >> low).sum()) for _, some in _iter_chunks(gaps))


def _iter_chunks(gaps: Places) -> Iterator[tuple[int, Places]]:
    """Some of them at a time, which a cache holds, and where they begin."""
    for first in range(0, len(gaps), CHUNK):
        yield first, gaps[first : first + CHUNK]


Part = Bytes | StoredTensor
"""A tensor that is packed, or left where it is until it is written."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What there is in a piece."""

    counts: ValueCounts
    places: Places
    """Of its values that are not 0, in the tensor; -0.0 is one of them."""
    values: Bits


NOTHING = _Seen(
    counts=ValueCounts(), places=np.zeros(0, dtype=np.int64), values=np.zeros(0, dtype=np.uint8)
)


@dataclass(frozen=True)
class StoredPacker:
    """Packs a checkpoint, and keeps what else its values tell while they are read."""

    checkpoint: StoredCheckpoint
    counts: dict[str, ValueCounts] = field(default_factory=dict)
    """By key."""
    negative_zeros: Counter[str] = field(default_factory=Counter)
    """How many values are -0.0, by key."""

    def pack(self) -> Packing[Part]:
        """Read all of the file, a piece at a time.

        Raises:
            InputError: the file is shorter than it was.
        """
        return assemble_packing(self._iter_tensors(), write_parts)

    def _iter_tensors(self) -> Iterator[tuple[str, Part, Packable[Part] | None]]:
        """By the names that they have in the file."""
        tensors = self.checkpoint.tensors
        key_of = {id(tensor): key for key, tensor in tensors.items()}
        pieces = chain.from_iterable(map(cut_into_pieces, tensors.values()))
        found = map_pieces(lambda piece, bits: _look(key_of[id(piece.tensor)], piece, bits), pieces)
        for key, tensor in tensors.items():
            seen = _merge(one for _, one in islice(found, count_pieces(tensor)))
            self.counts[key] = seen.counts
            yield self.checkpoint.names[key], tensor, self._pack_tensor(key, tensor, seen)

    def _pack_tensor(self, key: str, tensor: StoredTensor, seen: _Seen) -> Packable[Bytes] | None:
        if not _is_packable(tensor):
            return None
        sign = np.array(1 << (8 * tensor.itemsize - 1), seen.values.dtype)
        self.negative_zeros[key] = int(np.count_nonzero(seen.values == sign))
        return pack_values(
            seen.places,
            seen.values.view(np.uint8),
            dtype=NAMES[tensor.dtype.name],
            shape=tensor.shape,
            precision=AS_THEY_ARE,
        )


def _look(key: str, piece: Piece, bits: Bits) -> _Seen:
    kept = bits != 0 if _is_packable(piece.tensor) else np.zeros(0, dtype=np.bool_)
    here = np.flatnonzero(kept)  # of truth values it is nine times as fast
    values = bits.take(here)  # before they are counted, which takes their signs
    return _Seen(counts=count_piece(key, piece, bits), places=here + piece.first, values=values)


def _merge(pieces: Iterable[_Seen]) -> _Seen:
    """Of all pieces of a tensor, in order."""
    counts, seen = ValueCounts(), [NOTHING, *pieces]
    for one in seen:
        counts = merge_counts(counts, one.counts)
    return _Seen(
        counts=counts,
        places=np.concatenate([one.places for one in seen]),
        values=np.concatenate([one.values for one in seen]),
    )


def _is_packable(tensor: StoredTensor) -> bool:
    return tensor.is_floating_point() and tensor.itemsize in WORDS and tensor.numel() > 0


def write_parts(path: Path, parts: Mapping[str, Part], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file of arrays of bytes, and of tensors that lie in other files.

    Raises:
        InputError: one of these files is shorter than it was.
    """
    slots: dict[str, Slot] = {
        name: ("U8", part.shape)
        if isinstance(part, np.ndarray)
        else (NAMES[part.dtype.name], part.shape)
        for name, part in parts.items()
    }
    header, order = plan_header(slots, metadata)
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            for data in _iter_data(parts[name]):
                file.write(data)


def _iter_data(part: Part) -> Iterator[memoryview]:
    if isinstance(part, np.ndarray):
        yield part.data
        return
    reader = PieceReader()
    for piece in cut_into_pieces(part):
        yield reader.read(piece).data
