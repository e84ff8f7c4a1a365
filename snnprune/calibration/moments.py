"""Streaming statistics per channel, in float64 sums: the order of batches does not matter.

A tensor is taken in as (A, C, S), what is before the channels, the channels, what is after, and in
blocks small enough to stay in the processor's cache: the arithmetic is less work than the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**20  # elements


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

    def compute_variance(self) -> Tensor:
        """Population variance, (C,)."""
        return self.squares / self.count


class StepMoments:
    """Moments per channel, by the time step at which the values came."""

    def __init__(self) -> None:
        self.steps: list[ChannelMoments] = []

    def at(self, step: int) -> ChannelMoments:
        """Those of one step."""
        self.steps += [ChannelMoments() for _ in range(step + 1 - len(self.steps))]
        return self.steps[step]

    def merge(self, other: StepMoments) -> None:
        """Take in what another has taken in."""
        for step, moments in enumerate(other.steps):
            self.at(step).merge(moments)

    def together(self) -> ChannelMoments:
        """Those of all steps."""
        whole = ChannelMoments()
        for moments in self.steps:
            whole.merge(moments)
        return whole

    def compute_mean(self) -> Tensor:
        """(T, C)."""
        return torch.stack([moments.mean for moments in self.steps])

    def compute_variance(self) -> Tensor:
        """(T, C), each about its own step's mean."""
        return torch.stack([moments.compute_variance() for moments in self.steps])


class ChannelHistogram:
    """Counts per channel between fixed edges, with one bin on either side for the rest."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high, self.bins = low, high, bins
        self.counts = torch.zeros((), dtype=torch.int64)

    def compute_edges(self) -> Tensor:
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
