"""Safetensors files whose values are read in pieces, in constant memory. Imports no torch.

A value is looked at as the integer of its bits: those of |x| rise with |x|, so that a ranking by
magnitude needs no arithmetic, and all types are the same to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from snnprune.checkpoint.containers import SHARDED, files_of, note_future_version, sniff_container
from snnprune.checkpoint.header import (
    PACKED,
    Header,
    HeaderEntry,
    StoredType,
    read_file_header,
    read_shard_headers,
)
from snnprune.checkpoint.naming import (
    ValueCounts,
    find_split_parameters,
    is_variance,
    must_count_zeros,
    must_find_least,
    strip_prefixes,
)
from snnprune.files.reading import SteadyFiles, changed_error, open_for_reading

Bits = npt.NDArray[np.unsignedinteger[Any]]
"""Values of a file as integers, (n,)."""

PIECE = 2**19  # values that are read at a time
THREADS = 2  # a third waits for memory
INFINITE = {2: 0x7F800000, 4: 0x7F800000, 8: 0x7FF0000000000000}
"""The bits of infinity, by the item size of the type; halves are widened."""
RANKED = ("float16", "bfloat16", "float32", "float64")
"""The types whose values can be looked at here."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file; to be asked what a header knows of it, as one in memory."""

    file: Path
    start: int
    """Of its first byte in the file."""
    entry: HeaderEntry

    @property
    def dtype(self) -> StoredType:
        """Its type."""
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        return self.entry.shape

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.numel() * self.itemsize

    def dim(self) -> int:
        """How many sizes it has."""
        return self.entry.dim()

    def numel(self) -> int:
        """How many values it has."""
        return self.entry.numel()

    def is_floating_point(self) -> bool:
        """Whether its values are real numbers that are no integers."""
        return self.entry.is_floating_point()


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """A file and what its header says; see `checkpoint.Checkpoint`, which holds the values too."""

    path: Path
    container: str
    files: tuple[Path, ...]
    """The file, or the index and its shards."""
    steady: SteadyFiles
    """As they were before anything was read."""
    tensors: Mapping[str, StoredTensor]
    """By key, in the file's order."""
    metadata: dict[str, str]
    names: Mapping[str, str]
    """The key in the file of every key of `tensors`."""
    notes: tuple[str, ...]
    """What was done on the way in, one line each."""

    def describe_notes(self, odd: Iterable[str] = ()) -> tuple[str, ...]:
        """Its notes, with what is odd about its values, in the order of `read_checkpoint`."""
        return (*self.notes, *odd, *note_future_version(self.metadata))


def open_stored(path: Path) -> StoredCheckpoint | None:
    """A safetensors file or the index of several; None where it takes more to know its tensors.

    That is so of other containers, of packed files, of 8-bit floats, and of weights in two parts.

    Raises:
        InputError: it is no checkpoint, or its header does not fit the file.
    """
    container = sniff_container(path)
    if container not in ("safetensors", SHARDED):
        return None
    files = files_of(path)
    steady = SteadyFiles(files)
    with steady.hold():
        order, headers = (
            read_shard_headers(path)
            if container == SHARDED
            else (None, {path: read_file_header(path)})
        )
    metadata = {key: text for header in headers.values() for key, text in header.metadata.items()}
    found = _place_tensors(headers)
    tensors, names, notes = strip_prefixes({key: found[key] for key in order or found})
    odd = any(_takes_torch(key, one) for key, one in tensors.items())
    if PACKED in metadata or odd or find_split_parameters(tensors):
        return None
    return StoredCheckpoint(
        path=path,
        container=container,
        files=tuple(files),
        steady=steady,
        tensors=tensors,
        metadata=metadata,
        names=names,
        notes=notes,
    )


def _takes_torch(key: str, tensor: StoredTensor) -> bool:
    """Whether it holds 8-bit floats, or variances that are no plain numbers."""
    tiny = tensor.is_floating_point() and tensor.itemsize == 1
    return tiny or (is_variance(key) and tensor.dtype.name == "complex64")


def _place_tensors(headers: Mapping[Path, Header]) -> dict[str, StoredTensor]:
    return {
        entry.name: StoredTensor(file=file, start=header.start + entry.begin, entry=entry)
        for file, header in headers.items()
        for entry in header.entries
    }


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some of the values of a tensor, one after the other."""

    tensor: StoredTensor
    first: int
    count: int


def cut_into_pieces(tensor: StoredTensor) -> Iterator[Piece]:
    """Its values, in order."""
    for first in range(0, tensor.numel(), PIECE):
        yield Piece(tensor=tensor, first=first, count=min(PIECE, tensor.numel() - first))


def count_pieces(tensor: StoredTensor) -> int:
    """How many they are."""
    return -(-tensor.numel() // PIECE)


class PieceReader:
    """Reads pieces, each into the memory of the one before: what was read is gone then."""

    def __init__(self) -> None:
        self._own = threading.local()

    def read(self, piece: Piece, place: int = 0) -> Bits:
        """The bits of its values, (count,) of the unsigned integers of their size.

        Each `place` has memory of its own, for pieces that are looked at together.

        Raises:
            InputError: the file is shorter than it was.
        """
        size = piece.tensor.itemsize
        memory = self._reuse_memory(piece.count * size, place)
        _read_into(memory, piece.tensor, piece.first * size)
        return np.frombuffer(memory, dtype=f"<u{size}")

    def _reuse_memory(self, size: int, place: int) -> memoryview:
        held: dict[int, bytearray] = self._own.__dict__.setdefault("held", {})
        if len(held.get(place, b"")) < size:
            held[place] = bytearray(size)
        return memoryview(held[place])[:size]


def _read_into(memory: memoryview, tensor: StoredTensor, first: int) -> None:
    """Fill `memory` with the bytes of a tensor from `first` on."""
    with open_for_reading(tensor.file) as file:
        file.seek(tensor.start + first)
        if file.readinto(memory) != len(memory):
            raise changed_error(tensor.file)


@dataclass(frozen=True)
class StoredBytes:
    """The bytes of a tensor in a file, read when they are asked for: sliced as an array is."""

    tensor: StoredTensor

    @property
    def nbytes(self) -> int:
        """How many there are."""
        return self.tensor.nbytes

    def __getitem__(self, where: slice) -> npt.NDArray[np.uint8]:
        """Some of them.

        Raises:
            InputError: the file is shorter than it was.
        """
        first, last, _ = where.indices(self.nbytes)
        memory = bytearray(max(last - first, 0))
        _read_into(memoryview(memory), self.tensor, first)
        return np.frombuffer(memory, dtype=np.uint8)


Result = TypeVar("Result")


def map_pieces(
    function: Callable[[Piece, Bits], Result], pieces: Iterable[Piece]
) -> Iterator[tuple[Piece, Result]]:
    """What `function` makes of each piece and its bits, in order; several are at work at a time."""
    alone = ((piece,) for piece in pieces)
    for (piece,), found in map_together(lambda group, bits: function(group[0], bits[0]), alone):
        yield piece, found


Group = tuple[Piece, ...]


def map_together(
    function: Callable[[Group, Sequence[Bits]], Result], groups: Iterable[Group]
) -> Iterator[tuple[Group, Result]]:
    """As `map_pieces`, of pieces that are looked at together."""
    reader = PieceReader()

    def work(group: Group) -> Result:
        return function(group, [reader.read(piece, place) for place, piece in enumerate(group)])

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: list[tuple[Group, Future[Result]]] = []
        for group in groups:
            waiting.append((group, pool.submit(work, group)))
            if len(waiting) > 2 * THREADS:
                first, found = waiting.pop(0)
                yield first, found.result()
        for group, found in waiting:
            yield group, found.result()


def decode_values(kind: StoredType, bits: Bits) -> npt.NDArray[Any]:
    """The values of bits, (n,) in their type; bfloat16 as float32, which has all of its values."""
    if kind.name == "bfloat16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(np.dtype(kind.name))


def compute_magnitude_bits(
    kind: StoredType, bits: Bits, *, wide: bool = False, out: Bits | None = None
) -> Bits:
    """The bits of |x|, which are in the order of |x|: of float32, or of float64 where `wide`.

    In `out`, which may be `bits`, where they take no more room there.
    """
    if kind.name == "float64":
        return np.bitwise_and(bits, np.uint64(0x7FFFFFFFFFFFFFFF), out=out)
    if kind.name == "float16":
        bits, out = bits.view(np.float16).astype(np.float32).view(np.uint32), None
    elif kind.name == "bfloat16":
        bits, out = bits.astype(np.uint32) << np.uint32(16), None
    magnitude = np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=out)
    if not wide:
        return magnitude
    return magnitude.view(np.float32).astype(np.float64).view(np.uint64)


def count_piece(name: str, piece: Piece, bits: Bits) -> ValueCounts:
    """Of the values of a piece, which are lost; `first` counts from the tensor's beginning."""
    tensor = piece.tensor
    if not tensor.is_floating_point():
        return ValueCounts(zeros=count_zeros(bits) if must_count_zeros(name, tensor) else 0)
    least = _find_least(tensor.dtype, bits) if must_find_least(name, tensor) else 0.0
    magnitude = compute_magnitude_bits(tensor.dtype, bits, out=bits)
    nonfinite = first = 0
    if int(magnitude.max(initial=0)) >= INFINITE[tensor.itemsize]:
        lost = np.flatnonzero(magnitude >= INFINITE[tensor.itemsize])
        nonfinite, first = len(lost), piece.first + int(lost[0])
    return ValueCounts(
        nonfinite=nonfinite,
        first=first,
        zeros=count_zeros(magnitude) if must_count_zeros(name, tensor) else 0,
        least=least,
    )


def count_zeros(magnitude: Bits) -> int:
    """How many are the bits of 0."""
    return int(np.count_nonzero(magnitude == 0))


def _find_least(kind: StoredType, bits: Bits) -> float:
    """The least value, or 0 where none is negative."""
    magnitude = compute_magnitude_bits(kind, bits)
    below = magnitude[bits >> np.array(8 * kind.itemsize - 1, bits.dtype) == 1]
    floats = below.view(np.float64 if kind.itemsize == 8 else np.float32)
    return -float(floats.max(initial=0.0))


def merge_counts(one: ValueCounts, later: ValueCounts) -> ValueCounts:
    """Of two pieces of a tensor, the later one second."""
    return ValueCounts(
        nonfinite=one.nonfinite + later.nonfinite,
        first=one.first if one.nonfinite else later.first,
        zeros=one.zeros + later.zeros,
        least=min(one.least, later.least),
    )
