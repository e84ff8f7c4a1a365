"""Samples and time steps: where samples lie in a batch, and how many steps each neuron makes.

What a network does to one sample does not depend on the others. So where a batch is turned round
along its samples, what is put out is turned round too; along time it becomes something else. Steps
are counted, and some of what comes of that smells of a neuron that was seen wrongly.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.data.batches import copy_batch, describe_batch
from snnprune.graph.forward import (
    LAYOUT_OF_AXIS,
    CountedForward,
    Forward,
    Readout,
    find_scores,
    make_counted_forward,
)
from snnprune.graph.hooks import observe
from snnprune.graph.network import Layer, Network, Neuron
from snnprune.graph.state import use_eval_mode

ALIKE, CLOSE = 0.9, 1e-3
"""The share of places that have to be alike, and how much: a sum may round in another order."""


@dataclass(frozen=True, kw_only=True)
class TurnedBatch:
    """What comes of turning a batch round along one of its dimensions."""

    axis: int
    """Of the batch."""
    layout: str | None
    """Of an output with time steps: how it lies."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A network that knows where samples lie in what goes in and what comes out."""

    network: Network
    doubts: tuple[str, ...] = ()


@torch.no_grad()
def try_turns(network: Network, x: Tensor) -> list[TurnedBatch] | None:
    """The dimensions of `x`, of the first two, along which samples may lie, where several could.

    None where it cannot be told: the network draws, or puts out the same in all places.
    """
    if network.draws is not None:
        return None
    with use_eval_mode(network.module), network.reset_between_batches() as reset:

        def put_out(fed: Tensor) -> Tensor | None:
            reset()
            return find_scores(network.run(fed.clone()), network.readout.how)

        plain = put_out(x)
        if plain is None or all(_is_alike(plain, plain.flip(d)) for d in range(plain.dim() - 1)):
            return None
        found = []
        for axis in _list_possible_dims(x, plain):
            now = put_out(x.flip(axis))
            for d in range(plain.dim() - 1):
                same_size = plain.shape[d] == x.shape[axis]
                if now is not None and same_size and _is_alike(now, plain.flip(d)):
                    layout = LAYOUT_OF_AXIS[d] if plain.dim() == 3 else None
                    found.append(TurnedBatch(axis=axis, layout=layout))
        return found or _list_single_dims(x, plain)


def find_placement(network: Network, x: Any, y: Tensor | None, *, ran: Any) -> Placement:
    """Find where samples lie in batches like `x`, that `ran` came of, with labels `y` or without.

    The network that comes back counts batches without labels, and reads outputs, by that.
    """
    forward = network.forward
    by_size = (
        forward if y is not None else make_counted_forward(forward, x, ran, network.readout.how)
    )
    if not isinstance(x, Tensor) or x.dim() < 2 or isinstance(forward, CountedForward):
        return Placement(network=network.with_forward(by_size))
    found = try_turns(network, x)
    if y is not None:
        return _place_by_labels(network, x, len(y), found)
    return _place_without_labels(network, x, found, by_size)


def _place_by_labels(
    network: Network, x: Tensor, labels: int, found: list[TurnedBatch] | None
) -> Placement:
    if found is None:
        return Placement(network=network)
    fitting = [one for one in found if x.shape[one.axis] == labels]
    doubts: tuple[str, ...] = ()
    if not found:
        doubts = (_explain_mixing(x),)
    elif not fitting:
        doubts = (
            f"the network takes dimension {found[0].axis} of {describe_batch(x)} for its samples, "
            f"and {labels} labels come with it: time and samples look swapped",
        )
    return Placement(network=_laid_out(network, fitting), doubts=doubts)


def _place_without_labels(
    network: Network, x: Tensor, found: list[TurnedBatch] | None, by_size: Forward
) -> Placement:
    axes = {one.axis for one in found or ()}
    if len(axes) == 1:
        axis = axes.pop()
        forward = CountedForward(forward=network.forward, axis=axis) if axis else network.forward
        return Placement(network=_laid_out(network.with_forward(forward), found or []))
    placed = network.with_forward(by_size)
    count = placed.count_samples(x, None)
    doubts = []
    if found == []:
        doubts.append(_explain_mixing(x))
    elif len(axes) > 1 or len(x) == x.shape[1]:
        doubts.append(
            f"which dimension of {describe_batch(x)} has its samples is not to be seen: {count} "
            "are counted; labels beside it would tell"
        )
    return Placement(network=placed, doubts=tuple(doubts))


def _list_single_dims(x: Tensor, scores: Tensor) -> list[TurnedBatch]:
    """The first dimension that may hold one sample, which cannot be turned round."""
    ones = [d for d in range(scores.dim() - 1) if scores.shape[d] == 1]
    if not ones:
        return []
    layout = LAYOUT_OF_AXIS[ones[-1]]  # not of (N, classes): one sample is the same turned round
    return [TurnedBatch(axis=axis, layout=layout) for axis in (0, 1) if x.shape[axis] == 1][:1]


def _laid_out(network: Network, found: list[TurnedBatch]) -> Network:
    """The network, its outputs read in the layout that all of `found` say."""
    layouts = {one.layout for one in found}
    if len(layouts) != 1:
        return network
    readout = network.readout
    return network.with_readout(Readout(readout.how, name=readout.name, layout=layouts.pop()))


def _explain_mixing(x: Tensor) -> str:
    return (
        f"what the network puts out for a sample depends on the others in {describe_batch(x)}: "
        "does it take samples for time steps?"
    )


def _list_possible_dims(x: Tensor, scores: Tensor) -> list[int]:
    """The dimensions of `x` that are as long as one of the output's, the classes' left out."""
    return [axis for axis in (0, 1) if 1 < x.shape[axis] in scores.shape[:-1]]


def _is_alike(here: Tensor, there: Tensor) -> bool:
    """Whether two outputs (..., classes) agree in nearly all places."""
    if here.shape != there.shape:
        return False
    scale = float(there.abs().max()) or 1.0
    same = torch.isclose(here, there, rtol=CLOSE, atol=CLOSE * scale).all(-1)
    return float(same.double().mean()) >= ALIKE


def read_length(x: Any, samples: int) -> list[int]:
    """What stands beside the samples in the first two dimensions of a batch: T where it has time.

    Nothing where that is not to be seen; what counts is whether it changes from batch to batch.
    """
    if not isinstance(x, Tensor) or x.dim() < 3:
        return []
    beside = list(x.shape[:2])
    if samples in beside:
        beside.remove(samples)
    return beside[:1]


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
        self.lengths: set[int] = set()
        """Time steps of batches, as far as their shapes tell; see `read_length`."""

    def on_batch(self, x: Any, samples: int) -> None:
        """Take the length of a batch."""
        self.lengths.update(read_length(x, samples))

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        """Take what the neuron put out at one call."""
        if neuron != self.neuron or self.layer is None:
            return
        before = spikes.shape[: self.layer.channel_axis]
        tells = len(before) == 1 if self.layer.kind == "linear" else len(before) > 0
        self.moments += math.prod(before) if tells else 0

    def of(self, samples: int) -> int | None:
        """T, or None where the spikes do not tell, or batches differ in length."""
        if len(self.lengths) > 1:
            return None
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
