"""What is kept of a calibration pass while it goes on: sums, never activations."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from snnprune.calibration.alignment import aligned, membrane_axis
from snnprune.calibration.factors import NormFactors
from snnprune.calibration.moments import (
    ChannelHistogram,
    ChannelMean,
    ChannelMoments,
    blocks,
)
from snnprune.errors import NonFiniteError
from snnprune.network import Network, Neuron

HISTOGRAM = (-4.0, 4.0, 128)  # u - u_th from, to, bins

UNEXPLAINED = "its spikes do not follow from the membrane that was seen"
GATED = "something else decides with its membrane whether it spikes"
NO_AXIS = "its membrane has no axis that is surely that of its channels"


class Collector:
    """Takes what observers of a pass are told."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.factors = NormFactors(network)
        self.inputs: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.membranes: dict[str, ChannelMoments] = defaultdict(ChannelMoments)
        self.histograms = defaultdict[str, ChannelHistogram](lambda: ChannelHistogram(*HISTOGRAM))
        self.spikes: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.unchecked: dict[str, list[Tensor]] = defaultdict(list)
        self.refused = {n.name: GATED for n in network.neurons.values() if n.gated}
        self.steps = 0
        self.batches = 0
        self.first = next(iter(network.neurons), None)

    def on_input(self, weight: str, x: Tensor) -> None:
        for block in blocks(x, self.network.layers[weight].channel_axis):
            self.inputs[weight].add(block)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.steps += len(distance)
        pieces = self._by_channel(neuron, distance)
        for block in pieces:
            self.membranes[neuron].add(block)
        if pieces and not bool(self.membranes[neuron].squares.isfinite().all()):
            raise NonFiniteError("membrane potential is not finite", field=neuron)
        for block in pieces:
            self.histograms[neuron].add(block)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        fires = _fires(torch.cat(seen), self.network.neurons[neuron]) if seen else None
        spikes_then = None if fires is None else aligned(spikes, fires)
        if spikes_then is None:
            self.refused[neuron] = UNEXPLAINED
            return
        for block in self._by_channel(neuron, spikes_then):
            self.spikes[neuron].add(block)

    def _by_channel(self, neuron: str, x: Tensor) -> tuple[Tensor, ...]:
        """Blocks of (T, N, ...) by channel; none, and no statistics, where nobody can say which.

        A neuron that no layer drives is one channel.
        """
        layers = [self.network.layers[key] for key in self.network.neurons[neuron].feeders]
        if not layers:
            return blocks(x.reshape(-1, 1), -1)
        # a layer of other outputs, such as one between all places, does not say
        axes = {
            axis
            for layer in layers
            if (axis := membrane_axis(layer, x.shape, moved=layer.moved_to(neuron)))
        }
        if len(axes) == 1:
            return blocks(x, axes.pop())
        self.refused.setdefault(neuron, NO_AXIS)
        return ()


def _fires(distance: Tensor, neuron: Neuron) -> Tensor:
    """Where u - u_th, (T, N, ...), is a spike."""
    return distance >= 0 if neuron.constants.fires_at_threshold else distance > 0
