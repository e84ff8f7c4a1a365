"""Where the samples of a batch lie, told by running it turned round.

What a network does to one sample does not depend on the others. So where a batch is turned round
along its samples, what is put out is turned round too; along time it becomes something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.batches import described
from snnprune.network.feeding import batch_length
from snnprune.network.links import Network
from snnprune.network.mode import evaluating
from snnprune.network.readout import LAYOUT_OF_AXIS, Reading
from snnprune.network.rest import at_rest
from snnprune.network.running import Counted, Forward, counted, scores_in

ALIKE, CLOSE = 0.9, 1e-3
"""The share of places that have to be alike, and how much: a sum may round in another order."""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """What comes of turning a batch round along one of its dimensions."""

    axis: int
    """Of the batch."""
    layout: str | None
    """Of an output with time steps: how it lies."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where samples lie in what goes in and what comes out."""

    forward: Forward
    """The way to run a batch, with where they are in one without labels."""
    layout: str | None = None
    """Of an output with time steps; None where its shape is to tell."""
    doubts: tuple[str, ...] = ()


@torch.no_grad()
def turns(network: Network, run: Forward, x: Tensor, reading: str | Reading) -> list[Turned] | None:
    """The dimensions of `x`, of the first two, along which samples may lie, where several could.

    None where it cannot be told: the network draws, or puts out the same in all places.
    """
    if network.draws is not None:
        return None
    with evaluating(network.module), at_rest(network) as reset:

        def put_out(fed: Tensor) -> Tensor | None:
            reset()
            return scores_in(run(network.module, fed.clone()), reading)

        plain = put_out(x)
        if plain is None or all(_alike(plain, plain.flip(d)) for d in range(plain.dim() - 1)):
            return None
        found = []
        for axis in _possible(x, plain):
            now = put_out(x.flip(axis))
            for d in range(plain.dim() - 1):
                same_size = plain.shape[d] == x.shape[axis]
                if now is not None and same_size and _alike(now, plain.flip(d)):
                    layout = LAYOUT_OF_AXIS[d] if plain.dim() == 3 else None
                    found.append(Turned(axis=axis, layout=layout))
        return found or _single(x, plain)


def placement(
    network: Network,
    forward: Forward,
    x: Any,
    y: Tensor | None,
    reading: str | Reading,
    *,
    ran: Any,
) -> Placement:
    """Where the samples lie in batches like `x`, that `ran` came of, with labels `y` or without."""
    if not isinstance(x, Tensor) or x.dim() < 2 or isinstance(forward, Counted):
        return Placement(forward=counted(forward, x, ran, reading) if y is None else forward)
    found = turns(network, forward, x, reading)
    if y is not None:
        return _labelled(forward, x, len(y), found)
    return _unlabelled(forward, x, found, counted(forward, x, ran, reading))


def _labelled(forward: Forward, x: Tensor, labels: int, found: list[Turned] | None) -> Placement:
    if found is None:
        return Placement(forward=forward)
    fitting = [one for one in found if x.shape[one.axis] == labels]
    doubts: tuple[str, ...] = ()
    if not found:
        doubts = (_mixing(x),)
    elif not fitting:
        doubts = (
            f"the network takes dimension {found[0].axis} of {described(x)} for its samples, and "
            f"{labels} labels come with it: time and samples look swapped",
        )
    return Placement(forward=forward, layout=_layout(fitting), doubts=doubts)


def _unlabelled(
    forward: Forward, x: Tensor, found: list[Turned] | None, by_size: Forward
) -> Placement:
    axes = {one.axis for one in found or ()}
    if len(axes) == 1:
        axis = axes.pop()
        run = Counted(run=forward, axis=axis) if axis else forward
        return Placement(forward=run, layout=_layout(found))
    count = batch_length(x, None, by_size)
    doubts = []
    if found == []:
        doubts.append(_mixing(x))
    elif len(axes) > 1 or len(x) == x.shape[1]:
        doubts.append(
            f"which dimension of {described(x)} has its samples is not to be seen: {count} are "
            "counted; labels beside it would tell"
        )
    return Placement(forward=by_size, doubts=tuple(doubts))


def _single(x: Tensor, scores: Tensor) -> list[Turned]:
    """The first dimension that may hold one sample, which cannot be turned round."""
    ones = [d for d in range(scores.dim() - 1) if scores.shape[d] == 1]
    layout = LAYOUT_OF_AXIS[ones[-1]] if ones and scores.dim() == 3 else None
    return [Turned(axis=axis, layout=layout) for axis in (0, 1) if x.shape[axis] == 1 and ones][:1]


def _layout(found: list[Turned] | None) -> str | None:
    layouts = {one.layout for one in found or ()}
    return layouts.pop() if len(layouts) == 1 else None


def _mixing(x: Tensor) -> str:
    return (
        f"what the network puts out for a sample depends on the others in {described(x)}: does it "
        "take samples for time steps?"
    )


def _possible(x: Tensor, scores: Tensor) -> list[int]:
    """The dimensions of `x` that are as long as one of the output's, the classes' left out."""
    return [axis for axis in (0, 1) if 1 < x.shape[axis] in scores.shape[:-1]]


def _alike(here: Tensor, there: Tensor) -> bool:
    """Whether two outputs (..., classes) agree in nearly all places."""
    if here.shape != there.shape:
        return False
    scale = float(there.abs().max()) or 1.0
    same = torch.isclose(here, there, rtol=CLOSE, atol=CLOSE * scale).all(-1)
    return float(same.double().mean()) >= ALIKE
