"""What a checkpoint weighs as it is, compressed and packed. Importing this imports no torch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import zstandard

from snnprune.checkpoint.packing import Bytes, Packing
from snnprune.measure import Natural

GZIP = 31  # window bits of zlib that make a gzip stream
WHOLE = 2**23  # bytes: up to here gzip and zstd are tried on all of them
STEP = 2**24  # bytes that they are given at a time
PIECE, PIECES = 2**15, 64  # bytes of one piece, and how many of them stand for larger files


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of all tensors, without the header of a file."""

    dense: Natural
    """Zeros and all: what a plain file weighs."""
    gzip: Natural
    """Of all tensors one after the other, at the program's own level 6."""
    zstd: Natural
    """Likewise, at level 19."""
    tried: Natural
    """Bytes that gzip and zstd were tried on: all, or pieces from all over."""
    packed: Natural
    """As `export --to packed` stores them."""
    bound: Natural
    """What any packing takes at least: values, and the entropy of where they stand, if any places
    are as likely as any others."""

    @property
    def estimated(self) -> bool:
        """Whether `gzip` and `zstd` are what some pieces come to, times as many."""
        return self.tried < self.dense

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


class RawTensor(Protocol):
    """The bytes of a tensor, in memory or in a file; sliced as an array of them is."""

    @property
    def nbytes(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, where: slice, /) -> Bytes:
        """Some of them."""
        ...


def measure_sizes(
    tensors: Sequence[RawTensor], packing: Packing[Any], *, whole: float = WHOLE
) -> Sizes:
    """Measure all of them; `packing` is what was made of the same tensors.

    Of more than `whole` bytes gzip and zstd get evenly spaced pieces: at its level zstd takes some
    two MB a second.
    """
    dense = sum(tensor.nbytes for tensor in tensors)
    gzip = zlib.compressobj(level=6, wbits=GZIP)
    zstd = zstandard.ZstdCompressor(level=19).compressobj()
    tried = gzipped = zipped = 0
    for piece in _iter_all(tensors) if dense <= whole else _iter_pieces(tensors, dense):
        tried += piece.nbytes
        gzipped += len(gzip.compress(piece.data))
        zipped += len(zstd.compress(piece.data))
    gzipped, zipped = gzipped + len(gzip.flush()), zipped + len(zstd.flush())
    share = dense / tried if tried else 1.0
    return Sizes(
        dense=dense,
        gzip=round(gzipped * share),
        zstd=round(zipped * share),
        tried=tried,
        packed=packing.count_bytes(),
        bound=round(packing.bound),
    )


def _iter_all(tensors: Sequence[RawTensor]) -> Iterator[Bytes]:
    for tensor in tensors:
        for start in range(0, tensor.nbytes, STEP):
            yield tensor[start : start + STEP]


def _iter_pieces(tensors: Sequence[RawTensor], total: int) -> Iterator[Bytes]:
    """What is in `PIECES` pieces, evenly spaced over all bytes one after the other."""
    starts = [number * (total - PIECE) // (PIECES - 1) for number in range(PIECES)]
    before = 0
    for tensor in tensors:
        for start in starts:
            first, last = max(start - before, 0), min(start + PIECE - before, tensor.nbytes)
            if first < last:
                yield tensor[first:last]
        before += tensor.nbytes
