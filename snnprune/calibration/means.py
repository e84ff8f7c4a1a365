"""Means per channel of what enters layers and leaves neurons, summed in float64."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from snnprune.calibration.statistics import InputValues

KINDS: tuple[InputValues, ...] = get_args(InputValues)  # each takes in those before it


class ChannelMean:
    """Means of values, of their absolutes and squares per channel, and what kind they are."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = torch.zeros(3, 1, dtype=torch.float64)  # of |x|, x, x^2
        self.values: InputValues = "binary"

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values."""
        self.values = _kind_of(block, self.values)
        self.sums = self.sums.to(block.device) + torch.stack(_power_sums(block, self.values))
        self.count += block.shape[0] * block.shape[2]

    def merge(self, other: ChannelMean) -> None:
        """Take in what another has taken in."""
        self.values = max(self.values, other.values, key=KINDS.index)
        self.sums = self.sums + other.sums
        self.count += other.count

    def compute_mean(self) -> Tensor:
        """Of |x|, (C,) float64."""
        return self.sums[0] / self.count

    def compute_signed_mean(self) -> Tensor:
        """Of x, (C,) float64."""
        return self.sums[1] / self.count

    def compute_mean_square(self) -> Tensor:
        """Of x^2, (C,) float64."""
        return self.sums[2] / self.count


def _power_sums(block: Tensor, kind: InputValues) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of |x|, x and x^2 over (A, C, S) values of that kind, each (C,) float64."""
    total = block.sum(2).sum(0, dtype=torch.float64)
    if kind == "binary":
        return total, total, total
    square = torch.linalg.vector_norm(block, dim=2).double().square().sum(0)
    size = total if kind == "counts" else block.abs().sum(2).sum(0, dtype=torch.float64)
    return size, total, square


def _kind_of(values: Tensor, known: InputValues) -> InputValues:
    """The kind of all values so far; once it is analog it stays so."""
    if known == "analog":
        return known
    if known == "binary" and torch.equal(values * values, values):
        return "binary"
    whole = bool(((values == values.floor()) & (values >= 0)).all())
    return "counts" if whole else "analog"
