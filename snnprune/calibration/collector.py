"""What a calibration pass is told while it goes on, and what of it is kept."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from snnprune.calibration.alignment import ONE_CHANNEL, aligned, channel_axis
from snnprune.calibration.factors import NormFactors
from snnprune.calibration.moments import blocks
from snnprune.calibration.sums import Sums
from snnprune.distributed import Ranks
from snnprune.errors import NonFiniteError
from snnprune.network import LayerCall, Network, Neuron

UNEXPLAINED = "its spikes do not follow from the membrane that was seen"
HIDDEN = f"{UNEXPLAINED}: none was, as where a kernel makes them (choose a back end of plain torch)"
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
        self.steps: dict[str, int] = {}  # that neurons have made of this batch

    def begin(self) -> None:
        """Another batch comes: time starts anew."""
        self.steps = dict.fromkeys(self.network.neurons, 0)

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

    def on_layer(self, weight: str, call: LayerCall) -> None:
        if self.network.layers[weight].shaped and weight not in self.sums.weights:
            self.sums.weights[weight] = call.weight.detach().to("cpu", copy=True)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron == self.first:
            self.sums.steps += len(distance)
        axis = self._channel_axis(neuron, distance.shape)
        if axis is not None:
            self._take_membrane(neuron, distance, axis)
        self.steps[neuron] += len(distance)
        self.unchecked[neuron].append(distance)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.unchecked.pop(neuron, [])
        fires = _fires(torch.cat(seen), self.network.neurons[neuron]) if seen else None
        spikes_then = None if fires is None else aligned(spikes, fires)
        if spikes_then is None:
            self.sums.refused[neuron] = UNEXPLAINED if seen else HIDDEN
            return
        axis = self._channel_axis(neuron, spikes_then.shape)
        for block in () if axis is None else _by_channel(spikes_then, axis):
            self.sums.spikes[neuron].add(block)

    def _take_membrane(self, neuron: str, distance: Tensor, axis: int) -> None:
        moments = self.sums.membranes[neuron]
        for step, u in enumerate(distance, start=self.steps[neuron]):
            for block in _by_channel(u, axis):
                moments.at(step).add(block)
        # once for all channels and steps: each look at the values waits for the device
        if not bool(moments.compute_variance().isfinite().all()):
            raise NonFiniteError("membrane potential is not finite", field=neuron)
        for block in _by_channel(distance, axis):
            self.sums.histograms[neuron].add(block)

    def _channel_axis(self, neuron: str, shape: torch.Size) -> int | None:
        """As `channel_axis`; a neuron of which nobody can say has no statistics."""
        axis = channel_axis(self.network, neuron, shape)
        if axis is None:
            self.sums.refused.setdefault(neuron, NO_AXIS)
        return axis


def _by_channel(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Blocks (A, C, S) of what has its channels at `axis`, counted from the end."""
    return blocks(x.reshape(-1, 1), -1) if axis == ONE_CHANNEL else blocks(x, axis)


def _fires(distance: Tensor, neuron: Neuron) -> Tensor:
    """Where u - u_th, (T, N, ...), is a spike."""
    return distance >= 0 if neuron.constants.fires_at_threshold else distance > 0
