"""The chance that a changed weight changes a spike: bounds and estimate, beside what happens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.forward import Batch
from snnprune.graph.hooks import observe
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.measure.alignment import find_channel_axis
from snnprune.measure.calibration import Calibration, DriveStatistics
from snnprune.pruning.criteria.density import compute_flip_chance
from snnprune.theory import bounds
from snnprune.theory.moving import MembraneShift, measure_shifts, sum_by_channel


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
    densities: bounds.Densities

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
        return bounds.rank_correlation(self.compute_counted(), self.compute_flipped())


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
        return bounds.compute_reach(
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
        bound=bounds.density_bound(change.drive.neuron, radii[-1], share),
        densities=bounds.compute_densities(change.drive.neuron),
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
