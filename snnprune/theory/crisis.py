"""The chance that a changed weight changes a spike: bounds and estimate, beside what happens.

Layer by layer, and what it comes to in a whole network, over layers and time steps.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.forward import Batch
from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.state import use_eval_mode
from snnprune.measure.calibration import Calibration, DriveStatistics, NeuronStatistics
from snnprune.measure.channel_sums import find_channel_axis
from snnprune.pruning.criteria.spiking import (
    compute_flip_chance,
    log_density_at_threshold,
    log_density_of_histogram,
)
from snnprune.theory.shifts import FlipSpread, MembraneShift, measure_shifts, sum_by_channel

FLOAT32 = 1e-6  # relative rounding of a few sums, and absolute for membranes about 1
ROUNDING = 1e-5  # more than that is none


def geometric(beta: float, steps: int, *, decay_input: bool = False) -> float:
    """(1 - beta^T) / (1 - beta): how much of a constant error of the input gathers in T steps.

    T at beta = 1; with an input that is scaled by 1 - beta, 1 - beta^T.
    """
    gathered = float(steps) if beta == 1 else (1 - beta**steps) / (1 - beta)
    return gathered * (1 - beta) if decay_input else gathered


def compute_reach(
    beta: float | None, error: Tensor, seen: Tensor, *, decay_input: bool = False
) -> tuple[Tensor, bool]:
    """How far an error eps of every current takes a membrane by each step, (T, C) (Lemma 3.4).

    eps (1 - beta^t) / (1 - beta), and what rounding adds to it. And whether that is so: where the
    decay is not known, or `seen` (T, C) was further, as by a layer that is used twice in a step,
    it is the furthest that was seen instead.
    """
    furthest = seen.amax(0).expand_as(seen)
    if beta is None:
        return furthest, False
    factors = [geometric(beta, step + 1, decay_input=decay_input) for step in range(len(seen))]
    gone = torch.tensor(factors, dtype=error.dtype).unsqueeze(1) * error
    beyond = (seen - gone).clamp(min=0)
    if bool((beyond > ROUNDING * (1 + gone)).any()):
        return furthest, False
    return gone + beyond.amax(0) + FLOAT32 * (gone + (error > 0)), True


def density_bound(neuron: NeuronStatistics, radius: Tensor, near: Tensor) -> Tensor:
    """2 p_sup r, at most 1, (C,): Lemmas 3.3 and 3.4.

    p_sup is the highest counted density of the bins that lie within r of the threshold at least in
    part. Within a bin it may be higher still: then it is what `near`, P[|u - u_th| <= r], says.
    """
    edges, counts = _split_bins(neuron)
    width = float(edges[1] - edges[0])
    total = counts.sum(1, keepdim=True).clamp(min=1)
    density = counts[:, 1:-1] / (total * width)
    bound = 2 * (density * _find_touched_bins(edges, radius)).amax(1) * radius
    # nobody counted how dense it is past the bins
    bound = bound.where(radius < _find_reach(edges), torch.ones_like(bound))
    return torch.maximum(bound, near).clamp(max=1)


@dataclass(frozen=True, kw_only=True)
class Densities:
    """Of a membrane at its threshold, (C,), per unit of it."""

    gaussian: Tensor
    counted: Tensor

    def compute_log_distance(self) -> Tensor:
        """|log10| of their ratio; 1 is a factor of ten."""
        return (self.gaussian.log10() - self.counted.log10()).abs()


def compute_densities(neuron: NeuronStatistics) -> Densities:
    """By a Gaussian of the membrane's moments, and as counted around the threshold."""
    gaussian, counted = log_density_at_threshold(neuron), log_density_of_histogram(neuron)
    assert counted is not None
    return Densities(gaussian=gaussian.exp(), counted=counted.exp())


def rank_correlation(one: Tensor, other: Tensor) -> float | None:
    """Spearman's, ties at their mean rank; None for fewer than three or where all are equal."""
    if len(one) < 3:
        return None
    a, b = _compute_ranks(one), _compute_ranks(other)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else None


def _compute_ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def _split_bins(neuron: NeuronStatistics) -> tuple[Tensor, Tensor]:
    assert neuron.histogram_edges is not None
    return neuron.histogram_edges, neuron.membrane_histogram.double()


def _find_touched_bins(edges: Tensor, radius: Tensor) -> Tensor:
    """Which inner bins lie at least in part within r of the threshold, (C, bins)."""
    low, high = edges[:-1], edges[1:]
    r = radius.unsqueeze(1)
    return ((low <= r) & (high >= -r)).double()


def _find_reach(edges: Tensor) -> float:
    """How far from the threshold the bins go on both sides."""
    return min(float(-edges[0]), float(edges[-1]))


@dataclass(frozen=True, kw_only=True)
class CrisisEstimate:
    """Of a layer and a neuron that it drives, per channel, (C,) float64.

    Each row is at most the next, on the data that all of it was counted on: `flipped` <= `near` <=
    `bound`. `estimate` is none of them: it is what Eq. 12 predicts.
    """

    layer: str
    neuron: str
    error: Tensor
    """eps: the largest change of the current that reaches the membrane."""
    reached: Tensor
    """eps (1 - beta^t) / (1 - beta) at step t, (T, C): the crisis neighbourhood (Lemma 3.4)."""
    followed: bool
    """Whether it is that, and not the furthest that a membrane was seen to go."""
    moved: MembraneShift
    near: Tensor
    """P[|u - u_th| <= r], counted, with the r of each step."""
    bound: Tensor
    """2 p_sup r, at most 1, with the r of the last."""
    densities: Densities

    @property
    def radius(self) -> Tensor:
        """At the last step, (C,)."""
        return self.reached[-1]

    def compute_estimate(self) -> Tensor:
        """p(u_th) E|du|, by the Gaussian density, as in Eq. 12."""
        return compute_flip_chance(self.densities.gaussian, self.moved.compute_mean())

    def compute_counted(self) -> Tensor:
        """The same by the counted density."""
        return compute_flip_chance(self.densities.counted, self.moved.compute_mean())

    def compute_flipped(self) -> Tensor:
        """As measured: places whose spike is the first of its course to be another."""
        return self.moved.compute_rate()

    def compute_correlation(self) -> float | None:
        """Of the counted estimate and the measurement, by ranks of the channels."""
        return rank_correlation(self.compute_counted(), self.compute_flipped())


def measure_crises(
    network: Network,
    calibration: Calibration,
    changed: Mapping[str, Tensor],
    batches: Batches,
    *,
    at_least: float = 0.0,
    keys: Iterable[str] | None = None,
) -> list[CrisisEstimate]:
    """What each of the `changed` weights does when it alone is changed.

    `batches` are those that `calibration` was taken on; so the bounds
    hold on them exactly and not by inference. They are those of an error of `at_least` that much.
    `keys` are those of `changed` one by one, where somebody wants to see them go by.
    """
    found = []
    for key in changed if keys is None else keys:
        seen = calibration.layers.get(key)
        if seen is None or not seen.drives:
            continue
        names = [drive.name for drive in seen.drives]
        happened, currents = measure_shifts(network, {key: changed[key]}, names, batches)
        found += [
            _LayerChange(
                layer=key,
                drive=drive,
                happened=happened[drive.name],
                error=(currents[key] * drive.bn_scale).clamp(min=at_least),
            )
            for drive in seen.drives
            if drive.name in happened
        ]
    reaches = [one.compute_reach(network) for one in found]
    asked = [(one.drive.name, radii) for one, (radii, _) in zip(found, reaches, strict=True)]
    near = count_near(network, asked, batches)
    return [
        _measure_crisis(one, radii, followed, counts)
        for one, (radii, followed), counts in zip(found, reaches, near, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _LayerChange:
    """Of a layer, as a neuron that it drives hears it."""

    layer: str
    drive: DriveStatistics
    happened: MembraneShift
    error: Tensor

    def compute_reach(self, network: Network) -> tuple[Tensor, bool]:
        constants = network.neurons[self.drive.name].constants
        return compute_reach(
            constants.beta,
            self.error,
            self.happened.reach,
            decay_input=constants.decay_input,
        )


def _measure_crisis(
    change: _LayerChange, radii: Tensor, followed: bool, near: Tensor
) -> CrisisEstimate:
    share = near.sum(0) / change.happened.places.clamp(min=1)
    return CrisisEstimate(
        layer=change.layer,
        neuron=change.drive.name,
        error=change.error,
        reached=radii,
        followed=followed,
        moved=change.happened,
        near=share,
        bound=density_bound(change.drive.neuron, radii[-1], share),
        densities=compute_densities(change.drive.neuron),
    )


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
    return bool((spread.untouched <= reach + ROUNDING * (1 + reach)).all())


def _compute_bounds(
    neuron: NeuronStatistics, radii: Tensor, near: Tensor, spread: FlipSpread
) -> Tensor:
    """2 p_sup r summed over all places of a step, (T,)."""
    places = spread.places.unsqueeze(1) / near.shape[1]
    shares = near / places
    chances = [density_bound(neuron, *each) for each in zip(radii, shares, strict=True)]
    return (torch.stack(chances) * places).sum(1)
