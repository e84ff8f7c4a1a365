"""Streaming statistics per channel, in float64 so that the order of batches does not matter."""

import torch
from torch import Tensor

from snnprune.calibration.statistics import InputValues


def by_channel(x: Tensor, axis: int) -> Tensor:
    """`x` as (C, everything else)."""
    return x.movedim(axis, 0).flatten(1)


class ChannelMoments:
    """Mean and variance per channel, merged batch by batch (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())  # sum of squared distances to the mean

    def add(self, values: Tensor) -> None:
        """Take in (C, n) values."""
        squares, mean = torch.var_mean(values.double(), dim=1, correction=0)
        count = values.shape[1]
        self.merge(count, mean, squares * count)

    def merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
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

    def add(self, values: Tensor) -> None:
        """Take in (C, n) values."""
        self.values = _kind_of(values, self.values)
        magnitudes = values if self.values != "analog" else values.abs()
        self.sum = self.sum.to(values.device) + magnitudes.sum(1, dtype=torch.float64)
        self.count += values.shape[1]

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

    def add(self, values: Tensor) -> None:
        """Take in (C, n) values; a bin holds its lower edge."""
        channels, width = values.shape[0], self.bins + 2
        scale = self.bins / (self.high - self.low)
        position = ((values - self.low) * scale).floor_().clamp_(-1, self.bins).add_(1)
        row = torch.arange(channels, device=values.device).unsqueeze(1) * width
        index = position.to(torch.int64).add_(row).flatten()
        counts = torch.bincount(index, minlength=channels * width).view(channels, width)
        self.counts = self.counts.to(values.device) + counts


def _kind_of(values: Tensor, known: InputValues) -> InputValues:
    """The kind of all values so far; once it is analog it stays so."""
    if known == "analog":
        return known
    if known == "binary" and bool(((values == 0) | (values == 1)).all()):
        return "binary"
    whole = bool(((values == values.floor()) & (values >= 0)).all())
    return "counts" if whole else "analog"
