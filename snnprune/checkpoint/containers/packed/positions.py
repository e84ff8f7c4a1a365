"""Where the values of a sparse tensor stand, in next to as few bits as there can be.

The zeros before each value are counted and the counts Rice-coded (Rice 1979; Golomb 1966): the
lowest `low` bits of a count as they are, the rest in unary, as that many 0 and a 1. For values at
random places that is within 4 % of their entropy, at any sparsity: what runs of zeros of one length
more often than chance would have them could save, as in a pattern, is not looked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    low = _best_low(gaps)
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
    if len(coded.lowest) != lowest_bytes(count, coded.low):
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


def lowest_bytes(count: int, low: int) -> int:
    """How long the stream of low bits is."""
    return -(-count * low // 8)


def entropy_bits(kept: int, size: int) -> float:
    """What it takes at least to say which `kept` of `size` places are taken, if all choices are
    as likely: log2 of the binomial coefficient, in bits.
    """
    natural = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return max(0.0, natural / math.log(2))


def _best_low(gaps: npt.NDArray[np.int64]) -> int:
    """How many low bits make the code shortest."""
    if not len(gaps):
        return 0
    longest = int(gaps.max()).bit_length()
    lengths = [len(gaps) * (1 + low) + int((gaps >> low).sum()) for low in range(longest + 1)]
    return int(np.argmin(lengths))
