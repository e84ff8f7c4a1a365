"""The values that a packed tensor keeps, as precise as was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.checkpoint.containers.raw import bytes_of

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
        encode=lambda values, _, __: bytes_of(_narrowed(values, stored)),
        decode=lambda raw, _, __: raw.clone().view(stored),
    )


def _narrowed(values: Tensor, dtype: torch.dtype) -> Tensor:
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
