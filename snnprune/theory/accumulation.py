"""What changes of all layers come to in a whole network, over layers and time steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.graph.forward import Batch
from snnprune.graph.network import Network
from snnprune.measure.calibration import Calibration, NeuronStatistics
from snnprune.theory import bounds
from snnprune.theory.crisis import CrisisEstimate, count_near
from snnprune.theory.spreading import FlipSpread


@dataclass(frozen=True, kw_only=True)
class AccumulatedFlips:
    """Up to the neurons of one name, those that ran before them included; (T,) float64 each."""

    neuron: str
    flipped: Tensor
    """Share of these neurons whose spike is another at this step."""
    hit: Tensor
    """Share of samples in which any spike so far is another."""
    near: Tensor | None
    """Expected membranes of a sample so near the threshold that an error can flip them: at least
    `hit`. None where an error comes to a membrane by a way that is not followed."""
    bound: Tensor | None
    """The same by 2 p_sup r: Theorem 3.5 summed over neurons, layers and steps; empty above 1."""


def accumulate_flips(
    network: Network,
    calibration: Calibration,
    crises: Sequence[CrisisEstimate],
    spread: Mapping[str, FlipSpread],
    batches: Iterable[Batch],
) -> tuple[AccumulatedFlips, ...]:
    """`spread` is of all layers of `crises` changed at once; `batches` are those of all of these.

    As long as no spike is another, an error has come from the changed weights alone: the first that
    flips does so by an error that the `CrisisEstimate` of its own layers know, and is near enough
    for it. There is no bound from a neuron on that may hear of a changed layer without a
    `CrisisEstimate`.
    """
    radii = _sum_radii(crises)
    counts = count_near(network, list(radii.items()), batches)
    near = dict(zip(radii, counts, strict=True))
    found: list[AccumulatedFlips] = []
    known, followed = True, {crisis.layer for crisis in crises}
    counted = bound = torch.zeros(calibration.time_steps, dtype=torch.float64)
    for neuron, one in spread.items():
        known = (
            known and one.after <= followed and _is_explained(one, radii.get(neuron), calibration)
        )
        if known and neuron in radii:
            counted = counted + near[neuron].sum(1).cumsum(0) / one.samples
            chances = _compute_bounds(calibration.neurons[neuron], radii[neuron], near[neuron], one)
            bound = bound + chances.cumsum(0) / one.samples
        found.append(
            AccumulatedFlips(
                neuron=neuron,
                flipped=one.flips / one.places,
                hit=one.hit / one.samples,
                near=counted if known else None,
                bound=bound if known else None,
            )
        )
    return tuple(found)


def find_first_empty(found: Sequence[AccumulatedFlips]) -> tuple[str, int] | None:
    """The neuron and the step, counted from 1, from which the bound is 1 or more."""
    for one in found:
        if one.bound is None:
            return None
        over = (one.bound >= 1).nonzero()
        if len(over):
            return one.neuron, int(over[0]) + 1
    return None


def _sum_radii(crises: Sequence[CrisisEstimate]) -> dict[str, Tensor]:
    """By neuron (T, C): the errors of all layers that drive it."""
    radii: dict[str, Tensor] = {}
    for one in crises:
        known = radii.get(one.neuron)
        radii[one.neuron] = one.reached if known is None else known + one.reached
    return radii


def _is_explained(spread: FlipSpread, radii: Tensor | None, calibration: Calibration) -> bool:
    """Whether no membrane went further, while no spike was another, than its own layers say."""
    if len(spread.places) != calibration.time_steps:
        return False
    reach = torch.zeros_like(spread.untouched) if radii is None else radii
    return bool((spread.untouched <= reach + bounds.ROUNDING * (1 + reach)).all())


def _compute_bounds(
    neuron: NeuronStatistics, radii: Tensor, near: Tensor, spread: FlipSpread
) -> Tensor:
    """2 p_sup r summed over all places of a step, (T,)."""
    places = spread.places.unsqueeze(1) / near.shape[1]
    shares = near / places
    chances = [bounds.density_bound(neuron, *each) for each in zip(radii, shares, strict=True)]
    return (torch.stack(chances) * places).sum(1)
