"""What a calibration pass is told while it goes on, and what of it is kept."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from snnprune.calibration.alignment import aligned, membrane_axis
from snnprune.calibration.factors import NormFactors
from snnprune.calibration.moments import blocks
from snnprune.calibration.sums import Sums
from snnprune.distributed import Ranks
from snnprune.errors import NonFiniteError
from snnprune.network import Network, Neuron

UNEXPLAINED = "its spikes do not follow from the membrane that was seen"
GATED = "something else decides with its membrane whether it spikes"
NO_AXIS = "its membrane has no axis that is surely that of its channels"


class Collector:
    """Takes what observers of a pass are told."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.sums = Sums()
        self.sums.refused = {n.name: GATED for n in network.neurons.values() if n.gated}
        self.factors = NormFactors(network, self.sums.factors)
        self.unchecked: dict[str, list[Tensor]] = defaultdict(list)
        self.first = next(iter(network.neurons), None)

    def gather(self, ranks: Ranks) -> None:
        """Take in what all ranks have been told, in their order: then all know the same."""
        if ranks.size == 1:
            return
        self.sums, *others = ranks.gathered(self.sums)
        for other in others:
            self.sums.merge(other)
        self.factors.factors = self.sums.factors

    def on_input(self, weight: str, x: Tensor) -> None:
        for block in blocks(x, self.network.layers[weight].channel_axis):
            self.sums.inputs[weight].add(block)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.sums.steps += len(distance)
        pieces = self._by_channel(neuron, distance)
        for block in pieces:
            self.sums.membranes[neuron].add(block)
        if pieces and not bool(self.sums.membranes[neuron].squares.isfinite().all()):
            raise NonFiniteError("membrane potential is not finite", field=neuron)
        for block in pieces:
            self.sums.histograms[neuron].add(block)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        fires = _fires(torch.cat(seen), self.network.neurons[neuron]) if seen else None
        spikes_then = None if fires is None else aligned(spikes, fires)
        if spikes_then is None:
            self.sums.refused[neuron] = UNEXPLAINED
            return
        for block in self._by_channel(neuron, spikes_then):
            self.sums.spikes[neuron].add(block)

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
        self.sums.refused.setdefault(neuron, NO_AXIS)
        return ()


def _fires(distance: Tensor, neuron: Neuron) -> Tensor:
    """Where u - u_th, (T, N, ...), is a spike."""
    return distance >= 0 if neuron.constants.fires_at_threshold else distance > 0
