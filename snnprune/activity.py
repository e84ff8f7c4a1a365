"""Which channels of a network's neurons never spike, and which always do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.calibration.alignment import channel_axis
from snnprune.network import Network
from snnprune.quantities import Natural


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Of the neurons of one name, over samples, time steps and space."""

    channels: Natural
    """1 where nobody can say which axis of the spikes they are."""
    silent: Natural
    """Channels that never spike."""
    saturated: Natural
    """Channels that spike everywhere at every step."""
    firing_rate: float
    """Spikes per neuron per time step."""


class ActivityCount:
    """Counts spikes by channel."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.spikes: dict[str, Tensor] = {}
        """(C,) float64 on the CPU, by neuron name."""
        self.places: dict[str, int] = defaultdict(int)
        """Neurons times samples times steps of each channel."""

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        """Take what a neuron put out at one call."""
        # called with all steps or with one: what comes first is time, samples or both
        axis = channel_axis(self.network, neuron, torch.Size((1, *spikes.shape))) or None
        if axis is None:
            counts = spikes.sum(dtype=torch.float64).reshape(1)
        else:
            others = [dim for dim in range(-spikes.dim(), 0) if dim != axis]
            counts = spikes.sum(others, dtype=torch.float64)
        self._take(neuron, counts.cpu(), spikes.numel() // len(counts))

    def add(self, other: Mapping[str, tuple[Tensor, int]]) -> None:
        """Take in what another process counted, as it `told`."""
        for neuron, (spikes, places) in other.items():
            self._take(neuron, spikes, places)

    def told(self) -> dict[str, tuple[Tensor, int]]:
        """Spikes and places, by neuron name."""
        return {neuron: (spikes, self.places[neuron]) for neuron, spikes in self.spikes.items()}

    def forget(self) -> None:
        """Begin anew."""
        self.spikes.clear()
        self.places.clear()

    def result(self) -> dict[str, Activity]:
        """By neuron name."""
        return {
            neuron: Activity(
                channels=len(spikes),
                silent=int((spikes == 0).sum()),
                saturated=int((spikes >= places).sum()),
                firing_rate=float(spikes.sum()) / (places * len(spikes)),
            )
            for neuron, (spikes, places) in self.told().items()
        }

    def _take(self, neuron: str, spikes: Tensor, places: int) -> None:
        before = self.spikes.get(neuron)
        if before is not None and len(before) != len(spikes):
            # shapes that say one thing here and another there say nothing
            before, held = before.sum().reshape(1), self.places[neuron] * len(before)
            spikes, places = spikes.sum().reshape(1), places * len(spikes)
            self.places[neuron] = held
        self.spikes[neuron] = spikes if before is None else before + spikes
        self.places[neuron] += places
