"""Where the samples of a batch lie, told by running it turned round.

What a network does to one sample does not depend on the others. So where a batch is turned round
along its samples, what is put out is turned round too; along time it becomes something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.data.batches import describe_batch
from snnprune.graph.forward import CountedForward, Forward, find_scores, make_counted_forward
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.graph.readout import LAYOUT_OF_AXIS, Readout

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


def place_samples(network: Network, x: Any, y: Tensor | None, *, ran: Any) -> Placement:
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
    layout = LAYOUT_OF_AXIS[ones[-1]] if ones and scores.dim() == 3 else None
    return [
        TurnedBatch(axis=axis, layout=layout) for axis in (0, 1) if x.shape[axis] == 1 and ones
    ][:1]


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
