"""What is kept of a calibration pass: sums, never activations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Protocol, Self, TypeVar

from torch import Tensor

from snnprune.calibration.means import ChannelMean
from snnprune.calibration.moments import ChannelHistogram, StepMoments

HISTOGRAM = (-4.0, 4.0, 128)  # u - u_th from, to, bins


class Sums:
    """By weight key, neuron name or key of a running variance; equal however the pass is cut."""

    def __init__(self) -> None:
        self.inputs: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.membranes: dict[str, StepMoments] = defaultdict(StepMoments)
        self.histograms: dict[str, ChannelHistogram] = defaultdict(
            partial(ChannelHistogram, *HISTOGRAM)
        )
        self.spikes: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.factors: dict[str, Tensor] = {}
        """Of normalisations, (C,) float64."""
        self.weights: dict[str, Tensor] = {}
        """Weights that functions make, by the key of their parameter."""
        self.refused: dict[str, str] = {}
        """Why a neuron has no statistics."""
        self.samples = self.batches = self.steps = 0

    def merge(self, other: Sums) -> None:
        """Take in what another pass has seen of the same network."""
        _merge(self.inputs, other.inputs)
        _merge(self.membranes, other.membranes)
        _merge(self.histograms, other.histograms)
        _merge(self.spikes, other.spikes)
        self.factors.update((k, v) for k, v in other.factors.items() if k not in self.factors)
        self.weights = other.weights | self.weights
        self.refused.update((k, v) for k, v in other.refused.items() if k not in self.refused)
        self.samples += other.samples
        self.batches += other.batches
        self.steps += other.steps


class _Mergeable(Protocol):
    def merge(self, other: Self, /) -> None: ...


M = TypeVar("M", bound=_Mergeable)


def _merge(into: dict[str, M], others: Mapping[str, M]) -> None:
    for name, other in others.items():
        into[name].merge(other)
