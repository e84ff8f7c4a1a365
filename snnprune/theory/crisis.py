"""The chance that a changed weight changes a spike: bounds and estimate, beside what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.calibration import Calibration, DriveStatistics
from snnprune.network import Batch, Network
from snnprune.theory import bounds
from snnprune.theory.moving import Moved, Run, moved


@dataclass(frozen=True, kw_only=True)
class Crisis:
    """Of a layer and a neuron that it drives, per channel, (C,) float64.

    Each row is at most the next, on the data that all of it was counted on: `flipped` <= `near` <=
    `bound`. `estimate` is none of them: it is what Eq. 12 predicts.
    """

    layer: str
    neuron: str
    error: Tensor
    """eps: the largest change of the current that reaches the membrane."""
    radius: Tensor
    """eps (1 - beta^T) / (1 - beta): the crisis neighbourhood (Lemma 3.4)."""
    moved: Moved
    near: Tensor
    """P[|u - u_th| <= radius], counted."""
    bound: Tensor
    """2 p_sup radius, at most 1."""
    densities: bounds.Densities

    @property
    def estimate(self) -> Tensor:
        """p(u_th) E|du|, by the Gaussian density, as in Eq. 12."""
        return bounds.first_order(self.densities.gaussian, self.moved.mean)

    @property
    def counted(self) -> Tensor:
        """The same by the counted density."""
        return bounds.first_order(self.densities.counted, self.moved.mean)

    @property
    def flipped(self) -> Tensor:
        """As measured: places whose spike is the first of its course to be another."""
        return self.moved.rate

    @property
    def correlation(self) -> float | None:
        """Of the counted estimate and the measurement, by ranks of the channels."""
        return bounds.rank_correlation(self.counted, self.flipped)


def crises_of_layers(
    network: Network,
    calibration: Calibration,
    changed: Mapping[str, Tensor],
    batches: Callable[[], Iterable[Batch]],
    *,
    run: Run = lambda module, x: module(x),
    at_least: float = 0.0,
) -> list[Crisis]:
    """What each of the `changed` weights does when it alone is changed.

    `batches` gives the images that `calibration` was taken on, anew at each call; so the bounds
    hold on them exactly and not by inference. They are those of an error of `at_least` that much.
    """
    found = []
    for key, weight in changed.items():
        seen = calibration.layers.get(key)
        if seen is None or not seen.drives:
            continue
        names = [drive.name for drive in seen.drives]
        happened, currents = moved(network, {key: weight}, names, batches(), run=run)
        found += [
            _crisis(network, calibration, key, drive, happened[drive.name], currents[key], at_least)
            for drive in seen.drives
            if drive.name in happened
        ]
    return found


def _crisis(
    network: Network,
    calibration: Calibration,
    key: str,
    drive: DriveStatistics,
    happened: Moved,
    current: Tensor,
    at_least: float,
) -> Crisis:
    constants = network.neurons[drive.name].constants
    error = (current * drive.bn_scale).clamp(min=at_least)
    # what an unknown decay does to an error is not known: then as far as it was seen to go
    radius = happened.furthest
    if constants.beta is not None:
        gathered = bounds.geometric(
            constants.beta, calibration.time_steps, decay_input=constants.decay_input
        )
        # rounding of the membrane itself is no part of the theory
        radius = torch.maximum(radius, error * gathered)
    return Crisis(
        layer=key,
        neuron=drive.name,
        error=error,
        radius=radius,
        moved=happened,
        near=bounds.neighbourhood(drive.neuron, radius),
        bound=bounds.density_bound(drive.neuron, radius),
        densities=bounds.densities(drive.neuron),
    )
