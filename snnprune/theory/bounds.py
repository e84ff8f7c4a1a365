"""From an error of the membrane to a chance that its spike changes; Yao et al. 2023, section 3."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.measure.calibration import NeuronStatistics
from snnprune.pruning.criteria.spiking import log_density_at_threshold, log_density_of_histogram

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
