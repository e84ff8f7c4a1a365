"""The values that a packed tensor keeps, as precise as was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnprune.checkpoint.safetensors import bytes_of

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


AS_THEY_ARE = "exact"
INT8 = "int8"
FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = (AS_THEY_ARE, *FLOATS, INT8)
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
