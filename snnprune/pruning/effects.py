"""How far pruning moves the membranes of each neuron, and how many spikes that is to flip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.measure import Natural, Share
from snnprune.measure.calibration import Calibration, DriveStatistics, NeuronStatistics
from snnprune.pruning.criteria import Evidence, Scale
from snnprune.pruning.criteria.spiking import compute_gaussian_flip_chance, log_density_at_threshold
from snnprune.pruning.criteria.weight import rate_per_weight, variance


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Of the neurons of one name."""

    channels: Natural
    silent: Natural
    """Channels that never spike."""
    saturated: Natural
    """Channels that spike everywhere at every step."""
    firing_rate: float
    """Spikes per neuron per time step."""
    histogram: tuple[Natural, ...]
    """Counts of u - u_th over all channels, (bins + 2,); the first and last bin take what lies
    outside the edges."""


def describe_membranes(calibration: Calibration) -> dict[str, Membrane]:
    """By neuron name."""
    return {name: _describe_membrane(neuron) for name, neuron in calibration.neurons.items()}


def _describe_membrane(neuron: NeuronStatistics) -> Membrane:
    return Membrane(
        channels=len(neuron.firing_rate),
        silent=int((neuron.firing_rate == 0).sum()),
        saturated=int((neuron.firing_rate >= 1).sum()),
        firing_rate=float(neuron.firing_rate.mean()),
        histogram=tuple(neuron.membrane_histogram.sum(0).tolist()),
    )


BINS = 48


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Weights of a layer by the logarithm of their score to base 10."""

    edges: tuple[float, ...]
    """(bins + 1,); empty where no score is a finite logarithm."""
    kept: tuple[Natural, ...]
    pruned: tuple[Natural, ...]
    lowest: tuple[Natural, Natural]
    """Weights whose score has no logarithm, kept and pruned: worth nothing, or 0 already."""


def make_score_histogram(scores: Tensor, mask: Tensor, scale: Scale) -> ScoreHistogram:
    """Of the scores of one layer, on the `scale` of their criterion, and its mask of kept weights.

    Where a later step or a repair has chosen other weights, kept and pruned overlap.
    """
    values, alive = scores.double().flatten(), mask.flatten()
    # of linear scores those that are not positive have none either
    logs = values / torch.log(torch.tensor(10.0)) if scale == "log" else values.log10()
    finite = logs.isfinite()
    lowest = int((~finite & alive).sum()), int((~finite & ~alive).sum())
    if not bool(finite.any()):
        return ScoreHistogram(edges=(), kept=(), pruned=(), lowest=lowest)
    low, high = logs[finite].aminmax()
    high = torch.maximum(high, low + 1e-6)  # one value alone has a width too
    edges = torch.linspace(float(low), float(high), BINS + 1, dtype=torch.float64)
    bins = ((logs - low) / (high - low) * BINS).clamp(0, BINS - 1)
    return ScoreHistogram(
        edges=tuple(edges.tolist()),
        kept=_list_counts(bins[finite & alive]),
        pruned=_list_counts(bins[finite & ~alive]),
        lowest=lowest,
    )


def _list_counts(bins: Tensor) -> tuple[int, ...]:
    return tuple(torch.bincount(bins.long(), minlength=BINS).tolist())


@dataclass(frozen=True, kw_only=True)
class Crisis:
    """Of the neurons of one name, as predicted from the dense network's statistics."""

    radius: float
    """Mean over channels of the standard deviation of du, in units of the membrane: the half-width
    of the crisis neighbourhood."""
    flips: Share
    """Mean over channels of P = p(u_th) E|du|, at most 1: the share of spikes that flip."""


@dataclass(frozen=True, kw_only=True)
class InputRates:
    """Of what enters a layer, means of |x|."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class PruneEvidence:
    """What pruning did to membranes, and what it went by."""

    samples: Natural
    edges: tuple[float, ...]
    """Of the histograms of membranes."""
    before: Mapping[str, Membrane]
    """By neuron name, as what follows."""
    after: Mapping[str, Membrane]
    crises: Mapping[str, Crisis]
    input_rates: Mapping[str, InputRates]
    """By weight key, as what follows."""
    scores: Mapping[str, ScoreHistogram]


def predict_flips(
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
            moved[drive.name].append(currents * _compute_gain(drive) ** 2)
            density[drive.name] = log_density_at_threshold(drive.neuron).exp()
    return {
        name: _predict_flips_of(torch.stack(variances).sum(0).sqrt(), density[name])
        for name, variances in moved.items()
        if len({len(each) for each in variances}) == 1
    }


def _compute_gain(drive: DriveStatistics) -> Tensor:
    """What a current of 1 is in the membrane, (C_out,)."""
    return drive.bn_scale * drive.time_gain


def _predict_flips_of(deviation: Tensor, density: Tensor) -> Crisis:
    flips = compute_gaussian_flip_chance(density, deviation)
    return Crisis(radius=float(deviation.mean()), flips=float(flips.mean()))
