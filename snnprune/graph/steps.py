"""How many steps each neuron makes, and what of that smells of a neuron that was seen wrongly."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.data.batches import copy_batch
from snnprune.graph.hooks import observe
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Layer, Network, Neuron


class StepCount:
    """A sum over batches of N samples.

    Behind a convolution, spikes are (T, N, C, *space), (N, T, C, *space), (T N, C, *space) or, step
    by step, (N, C, *space): what stands before C is T N in all. Behind a linear layer only (N, C)
    and (T N, C) tell, as the tokens of (N, L, C) look like steps.
    """

    def __init__(self, network: Network) -> None:
        self.neuron, self.layer = _find_counting_neuron(network)
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


def _find_counting_neuron(network: Network) -> tuple[str | None, Layer | None]:
    """The first neuron with the dimensions of a layer that drives it, and that layer."""
    for neuron in network.neurons.values():
        for layer in map(network.layers.__getitem__, neuron.feeders):
            if not layer.is_moved_to(neuron.name):
                return neuron.name, layer
    return None, None


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What one batch makes of a network."""

    steps: Mapping[str, int]
    """Time steps of each neuron, by name; without those whose membrane cannot be seen."""
    calls: Mapping[str, int]
    """Calls of each layer, by weight key."""


@torch.no_grad()
def count_steps(network: Network, example: Any) -> StepCounts:
    """Run `example` from rest and count."""
    steps, calls = Counter[str](), Counter[str]()
    watched = observe(
        network,
        on_membrane=lambda name, distance: steps.update({name: len(distance)}),
        on_layer=lambda key, _: calls.update([key]),
    )
    with use_eval_mode(network.module), watched as start:
        start()
        network.run(copy_batch(example))
    return StepCounts(steps=steps, calls=calls)


def list_doubts(network: Network, paces: StepCounts) -> Iterator[str]:
    """A line for each thing that hints at links which are not those of the code."""
    yield from _doubt_split_in_time(network, paces.steps)
    yield from _doubt_without_time(network, paces)
    yield from _doubt_through_spikes(network)


def _doubt_split_in_time(network: Network, steps: Mapping[str, int]) -> Iterator[str]:
    """Neurons that may be one, seen anew at each time step."""
    alike = defaultdict[tuple[str, ...], list[Neuron]](list)
    for neuron in network.neurons.values():
        if neuron.sites and steps.get(neuron.name) == 1 and neuron.feeders:
            alike[neuron.feeders].append(neuron)
    for feeders, neurons in alike.items():
        if len(neurons) > 2:
            yield (
                f"{feeders[0]} drives {len(neurons)} neurons of one time step each: one neuron per "
                "step? its statistics are then those of single steps; --link chooses"
            )


def _doubt_without_time(network: Network, paces: StepCounts) -> Iterator[str]:
    """Neurons of one step behind layers that are called again and again."""
    for neuron in network.neurons.values():
        called = max((paces.calls.get(key, 0) for key in neuron.feeders), default=0)
        if paces.steps.get(neuron.name) == 1 and called > 1:
            yield (
                f"{neuron.name} makes one time step though what drives it is called {called} times"
            )


def _doubt_through_spikes(network: Network) -> Iterator[str]:
    """Layers that drive a neuron and the one that its spikes are added to."""
    for key, layer in network.layers.items():
        driven = [link.neuron for link in layer.links]
        for name in driven:
            for behind in set(driven) & set(network.neurons[name].identities):
                yield (
                    f"{key} drives {behind} and {name}, which gets the spikes of {behind}: through "
                    "these alone? --link chooses the one that it drives"
                )
