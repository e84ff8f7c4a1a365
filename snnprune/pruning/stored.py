"""Pruning by magnitude in a file: an exact ranking in constant memory. Imports no torch.

What goes is what `pruning.prune` would prune of the same weights by magnitude, to the last tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from snnprune.checkpoint.stored import (
    Bits,
    Piece,
    PieceReader,
    StoredTensor,
    compute_magnitude_bits,
    cut_into_pieces,
    map_pieces,
)
from snnprune.pruning.allocation import deal_shares

DIGIT = 18
"""An interval has at most 2 to the power of this bins, whose counters fit a core's cache."""
FEW = 2**20  # weights of which no sample is taken
EACH, RUN, MOST = 64, 1024, 2**21
"""A sample is every so many runs of so many weights, and more seldom where that would be more."""
DEVIATIONS = 8.0
"""Of the rank in a sample; where the weights of a run are alike, that may be too few."""
RULES = ("global", "local")
"""The allocations that need no more than a ranking."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What goes of weights that are ranked together."""

    level: int
    """What has lower bits of |w| goes, as `compute_magnitude_bits` gives them."""
    equal: Mapping[str, int]
    """How many of those of a layer that equal it go, the first ones, by weight key."""
    wide: bool
    """Whether the bits are those of float64."""


def find_cuts(
    weights: Mapping[str, StoredTensor], zeros: Mapping[str, int], sparsity: float, rule: str
) -> dict[str, Cut]:
    """Where to cut each weight so that exactly `round(sparsity * n)` go, by its key.

    `zeros` of each weight go first; where they are more than that, they are what goes. `rule` is
    one of `RULES`.
    """
    sizes = {key: weight.numel() for key, weight in weights.items()}
    count = round(sparsity * sum(sizes.values()))
    if rule == "global":
        return dict.fromkeys(weights, _find_cut(weights, max(count, sum(zeros.values()))))
    dealt = deal_shares(list(sizes.values()), count, floors=[zeros[key] for key in sizes])
    return {
        key: _find_cut({key: weights[key]}, share) for key, share in zip(sizes, dealt, strict=True)
    }


def _find_cut(weights: Mapping[str, StoredTensor], count: int) -> Cut:
    """Of the `count` smallest of these: an interval that holds the last, narrowed to one value."""
    wide = any(weight.itemsize == 8 for weight in weights.values())
    if not count:
        return Cut(level=0, equal={}, wide=wide)
    everything = Interval(low=0, high=2 ** (64 if wide else 32))
    interval = _guess_interval(weights, count, wide=wide) or everything
    while True:
        below, counted = _count_in(weights.values(), interval, wide=wide)
        upto = below + counted.cumsum()
        if not below < count <= upto[-1]:
            interval = everything  # the guess was a bad one
            continue
        bin = int(np.searchsorted(upto, count))
        if interval.shift == 0:
            break
        interval = interval.narrow(bin)
    level, left = interval.low + bin, count - int(upto[bin] - counted[bin])
    if left == counted[bin]:  # all that equal it go: nobody has to count which
        return Cut(level=level + 1, equal={}, wide=wide)
    return Cut(level=level, equal=_deal_ties(weights, level, left, wide=wide), wide=wide)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Bits of |w| from `low` on, below `high`, in bins of equal width."""

    low: int
    high: int

    @property
    def shift(self) -> int:
        """The width of a bin is 2 to the power of this."""
        return max(0, (self.high - self.low - 1).bit_length() - DIGIT)

    def narrow(self, bin: int) -> Interval:
        """A bin of it."""
        low = self.low + (bin << self.shift)
        return Interval(low=low, high=min(self.high, low + (1 << self.shift)))


def _guess_interval(
    weights: Mapping[str, StoredTensor], count: int, *, wide: bool
) -> Interval | None:
    """Where the last of the `count` smallest is likely to be, by a sample; None for few weights."""
    total = sum(weight.numel() for weight in weights.values())
    if total < FEW:
        return None
    reader = PieceReader()
    apart = RUN * max(EACH, total // MOST)
    pieces = chain.from_iterable(_sample_pieces(weight, apart) for weight in weights.values())
    sample = np.sort(np.concatenate([_rank(one, reader.read(one), wide=wide) for one in pieces]))
    share = count / total
    spread = DEVIATIONS * math.sqrt(share * (1 - share) * len(sample)) + 1
    place = share * len(sample)
    low, high = max(0, int(place - spread)), min(len(sample) - 1, int(place + spread))
    return Interval(low=int(sample[low]), high=int(sample[high]) + 1)


def _sample_pieces(weight: StoredTensor, apart: int) -> Iterator[Piece]:
    for first in range(0, weight.numel(), apart):
        yield Piece(tensor=weight, first=first, count=min(RUN, weight.numel() - first))


def _count_in(
    weights: Iterable[StoredTensor], interval: Interval, *, wide: bool
) -> tuple[int, npt.NDArray[np.int64]]:
    """How many lie below an interval, and in each of its bins."""
    bins = ((interval.high - interval.low - 1) >> interval.shift) + 1

    def look(piece: Piece, bits: Bits) -> tuple[int, Bits]:
        found = _rank(piece, bits, wide=wide, out=bits)
        low, last = (
            np.array(end, found.dtype) for end in (interval.low, interval.high - 1 - interval.low)
        )
        below = int(np.count_nonzero(found < low))
        found -= low  # what was below is far beyond now
        return below, found[found <= last] >> np.array(interval.shift, found.dtype)

    below, counted, waiting = 0, np.zeros(bins, np.int64), list[Bits]()
    pieces = chain.from_iterable(map(cut_into_pieces, weights))
    for _, (less, inside) in map_pieces(look, pieces):
        below += less
        waiting.append(inside)
        if sum(map(len, waiting)) > bins:
            counted += _count_bins(waiting, bins)
            waiting.clear()
    return below, counted + _count_bins(waiting, bins)


def _count_bins(found: Sequence[Bits], bins: int) -> npt.NDArray[np.int64]:
    together = np.concatenate([*found, np.empty(0, np.uint32)])
    return np.bincount(together.astype(np.int64), minlength=bins)


def _deal_ties(
    weights: Mapping[str, StoredTensor], level: int, count: int, *, wide: bool
) -> dict[str, int]:
    """How many of each that equal `level` are among the first `count` of all, in order."""
    dealt = {}
    for key, weight in weights.items():
        found = map_pieces(
            lambda piece, bits: int(
                (_rank(piece, bits, wide=wide) == np.uint64(level)).sum(dtype=np.int64)
            ),
            cut_into_pieces(weight) if count else (),
        )
        dealt[key] = min(count, sum(equal for _, equal in found))
        count -= dealt[key]
    return dealt


def _rank(piece: Piece, bits: Bits, *, wide: bool, out: Bits | None = None) -> Bits:
    return compute_magnitude_bits(piece.tensor.dtype, bits, wide=wide, out=out)


class MaskMaker:
    """Makes the masks of the pieces of one weight, which have to come in order."""

    def __init__(self, cut: Cut, key: str) -> None:
        self._cut, self._left = cut, cut.equal.get(key, 0)
        self._room: Bits | None = None

    def make(self, piece: Piece, bits: Bits) -> npt.NDArray[np.bool_]:
        """The mask of a piece, (count,), True = kept."""
        if self._room is None:
            self._room = np.empty_like(bits)
        found = _rank(piece, bits, wide=self._cut.wide, out=self._room[: len(bits)])
        level = np.array(self._cut.level, found.dtype)
        kept = found >= level
        if self._left:
            equal = np.flatnonzero(found == level)[: self._left]
            kept[equal] = False
            self._left -= len(equal)
        return kept
