"""How far pruning moves the membranes of each neuron, and how many spikes that is to flip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.calibration import Calibration, DriveStatistics
from snnprune.criteria import Evidence
from snnprune.criteria.density import log_density_at_threshold
from snnprune.criteria.flip_chance import gaussian_flip_chance
from snnprune.criteria.inputs import rate_per_weight, variance
from snnprune.mask import Masks
from snnprune.network import Network
from snnprune.quantities import Share


@dataclass(frozen=True, kw_only=True)
class Crisis:
    """Of the neurons of one name, as predicted from the dense network's statistics."""

    radius: float
    """Mean over channels of the standard deviation of du, in units of the membrane: the half-width
    of the crisis neighbourhood."""
    flips: Share
    """Mean over channels of P = p(u_th) E|du|, at most 1: the share of spikes that flip."""


def crises(
    weights: Mapping[str, Tensor], masks: Masks, network: Network, calibration: Calibration
) -> dict[str, Crisis]:
    """What the loss of the weights outside `masks` does, by neuron name.

    du = sum over the pruned weights of all layers that drive the neuron of w_ij x_i |gamma_j| /
    sigma_j, about its mean, which repairs give back; for many independent currents it is Gaussian,
    so that E|du| = sqrt(2 / pi) std(du), and P = p(u_th) E|du| to first order (Yao et al. 2023, Eq.
    12). Inputs are taken as they are in the dense network: what layers before pass on is not in it.
    """
    moved: dict[str, list[Tensor]] = defaultdict(list)
    density: dict[str, Tensor] = {}
    for key, weight in weights.items():
        layer, seen = network.layers.get(key), calibration.layers.get(key)
        if layer is None or seen is None or seen.input_square is None:
            continue
        pruned = layer.weight_of(weight.double() * ~masks[key])
        evidence = Evidence(weight=pruned, key=key, groups=layer.groups, statistics=seen)
        spread = rate_per_weight(variance(evidence), evidence)
        currents = (pruned**2 * spread).flatten(1).sum(1)
        for drive in seen.drives:
            moved[drive.name].append(currents * _gain(drive) ** 2)
            density[drive.name] = log_density_at_threshold(drive.neuron).exp()
    return {
        name: _crisis(torch.stack(variances).sum(0).sqrt(), density[name])
        for name, variances in moved.items()
        if len({len(each) for each in variances}) == 1
    }


def _gain(drive: DriveStatistics) -> Tensor:
    """What a current of 1 is in the membrane, (C_out,)."""
    return drive.bn_scale * drive.time_gain


def _crisis(deviation: Tensor, density: Tensor) -> Crisis:
    flips = gaussian_flip_chance(density, deviation)
    return Crisis(radius=float(deviation.mean()), flips=float(flips.mean()))
