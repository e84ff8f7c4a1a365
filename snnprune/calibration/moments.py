"""Streaming statistics per channel, in float64 sums: the order of batches does not matter.

A tensor is taken in as (A, C, S), what is before the channels, the channels, what is after, and in
blocks small enough to stay in the processor's cache: the arithmetic is less work than the memory.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from snnprune.calibration.statistics import InputValues

BLOCK = 2**20  # elements
KINDS: tuple[InputValues, ...] = get_args(InputValues)  # each takes in those before it


def blocks(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """`x` as blocks (A, C, S), C its axis `axis` (from the end)."""
    before, after = x.shape[:axis], x.shape[axis:][1:]
    whole = x.reshape(before.numel(), x.shape[axis], after.numel())
    if whole.shape[2] == 1 or x.is_cuda:  # nothing to gain
        return (whole,)
    return whole.split(max(1, BLOCK // max(1, whole[0].numel())))


class ChannelMoments:
    """Mean and variance per channel, merged block by block (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())  # sum of squared distances to the mean

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values."""
        inner = block.shape[2]
        if inner == 1:
            squares, mean = torch.var_mean(block.double(), dim=(0, 2), correction=0)
            self._take(block.shape[0], mean, squares * block.shape[0])
            return
        # each row by its own mean first: distances to it lose nothing in float32
        means = block.mean(2, keepdim=True)
        within = torch.linalg.vector_norm(block - means, dim=2).double().square_()
        means = means.squeeze(2).double()
        mean = means.mean(0)
        squares = within.sum(0) + inner * (means - mean).square_().sum(0)
        self._take(block.shape[0] * inner, mean, squares)

    def merge(self, other: ChannelMoments) -> None:
        """Take in what another has taken in."""
        self._take(other.count, other.mean, other.squares)

    def _take(self, count: int, mean: Tensor, squares: Tensor) -> None:
        """Take in `count` values per channel with that mean and sum of squared distances, (C,)."""
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Population variance, (C,)."""
        return self.squares / self.count


class ChannelMean:
    """Mean of the absolute values per channel, and what kind of values they are."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = torch.zeros((), dtype=torch.float64)
        self.values: InputValues = "binary"

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values."""
        self.values = _kind_of(block, self.values)
        magnitudes = block if self.values != "analog" else block.abs()
        rows = magnitudes.sum(2).sum(0, dtype=torch.float64)
        self.sum = self.sum.to(block.device) + rows
        self.count += block.shape[0] * block.shape[2]

    def merge(self, other: ChannelMean) -> None:
        """Take in what another has taken in."""
        self.values = max(self.values, other.values, key=KINDS.index)
        self.sum = self.sum + other.sum
        self.count += other.count

    @property
    def mean(self) -> Tensor:
        """(C,) float64."""
        return self.sum / self.count


class ChannelHistogram:
    """Counts per channel between fixed edges, with one bin on either side for the rest."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high, self.bins = low, high, bins
        self.counts = torch.zeros((), dtype=torch.int64)

    @property
    def edges(self) -> Tensor:
        """(bins + 1,) float64."""
        return torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values; a bin holds its lower edge."""
        channels, width = block.shape[1], self.bins + 2
        scale = self.bins / (self.high - self.low)
        # +1 for the bin below all others; what is positive is cut down by the change of type
        position = block.mul(scale).add_(1 - self.low * scale).clamp_(0, self.bins + 1)
        row = torch.arange(channels, device=block.device, dtype=torch.int32).mul_(width)
        index = position.to(torch.int32).add_(row.view(1, -1, 1)).flatten()
        counts = torch.bincount(index, minlength=channels * width).view(channels, width)
        self.counts = self.counts.to(block.device) + counts

    def merge(self, other: ChannelHistogram) -> None:
        """Take in what another has counted between the same edges."""
        self.counts = self.counts + other.counts


def _kind_of(values: Tensor, known: InputValues) -> InputValues:
    """The kind of all values so far; once it is analog it stays so."""
    if known == "analog":
        return known
    if known == "binary" and torch.equal(values * values, values):
        return "binary"
    whole = bool(((values == values.floor()) & (values >= 0)).all())
    return "counts" if whole else "analog"
