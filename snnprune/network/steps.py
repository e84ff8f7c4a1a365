"""How many time steps a pass makes, told by the shapes of one neuron's spikes."""

from __future__ import annotations

import math

from torch import Tensor

from snnprune.network.links import Layer
from snnprune.network.network import Network


class StepCount:
    """A sum over batches of N samples.

    Behind a convolution, spikes are (T, N, C, *space), (N, T, C, *space), (T N, C, *space) or, step
    by step, (N, C, *space): what stands before C is T N in all. Behind a linear layer only (N, C)
    and (T N, C) tell, as the tokens of (N, L, C) look like steps.
    """

    def __init__(self, network: Network) -> None:
        self.neuron, self.layer = _told_by(network)
        self.moments = 0
        """Samples times time steps."""

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        """Take what the neuron put out at one call."""
        if neuron != self.neuron or self.layer is None:
            return
        before = spikes.shape[: self.layer.channel_axis]
        tells = len(before) == 1 if self.layer.kind == "linear" else len(before) > 0
        self.moments += math.prod(before) if tells else 0

    def of(self, samples: int) -> int | None:
        """T, or None where the spikes do not tell."""
        steps, rest = divmod(self.moments, samples)
        return steps if steps and not rest else None


def _told_by(network: Network) -> tuple[str | None, Layer | None]:
    """The first neuron with the dimensions of a layer that drives it, and that layer."""
    for neuron in network.neurons.values():
        for layer in map(network.layers.__getitem__, neuron.feeders):
            if not layer.moved_to(neuron.name):
                return neuron.name, layer
    return None, None
