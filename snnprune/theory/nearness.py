"""How many membranes are near their threshold: those whose spike an error can flip."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from snnprune.graph.forward import Batch
from snnprune.graph.hooks import observe
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.measure.alignment import find_channel_axis
from snnprune.theory.moving import sum_by_channel


@torch.no_grad()
def count_near(
    network: Network,
    radii: Sequence[tuple[str, Tensor]],
    batches: Iterable[Batch],
) -> list[Tensor]:
    """Places with |u - u_th| <= r of each step and channel, (T, C) float64, in eval mode.

    For each of `radii`: a neuron and its r, (T, C). A neuron may be asked about more than once.
    """
    tally = _Near(network, radii)
    with use_eval_mode(network.module), observe(network, on_membrane=tally.on_membrane) as start:
        for x, _ in network.feed(batches):
            start()
            tally.steps.clear()
            network.run(x)
    return tally.counts


class _Near:
    def __init__(self, network: Network, radii: Sequence[tuple[str, Tensor]]) -> None:
        self.network = network
        self.counts = [torch.zeros_like(radius) for _, radius in radii]
        self.asked: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for (neuron, radius), counts in zip(radii, self.counts, strict=True):
            self.asked[neuron].append((radius, counts))
        self.steps: Counter[str] = Counter()

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        if neuron not in self.asked:
            return
        axis = find_channel_axis(self.network, neuron, distance.shape)
        for u in distance.abs():
            for radius, counts in self.asked[neuron]:
                # of a neuron that runs twice in a step no later error than the last is known
                step = min(self.steps[neuron], len(radius) - 1)
                counts[step] += sum_by_channel(u <= _align_channels(radius[step].to(u), axis), axis)
            self.steps[neuron] += 1


def _align_channels(values: Tensor, axis: int | None) -> Tensor:
    """(C,) so that it fits the channels of (N, C, ...)."""
    return values if not axis else values.reshape([-1] + [1] * (-axis - 1))
