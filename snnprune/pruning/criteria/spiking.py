"""The spiking-firing criterion and its variants: what a weight does to a spike.

They are the chance that a change of the membrane flips its spike, to first order P = p(u_th) E|du|:
Eq. 12 of Yao et al. 2023, arXiv 2305.12148, with the density p(u_th) of the membrane at the
threshold and du the change of the membrane before reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from snnprune.pruning.criteria import Evidence, criterion
from snnprune.pruning.criteria.weight import rate_per_weight, too_old_error, variance

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.measure.calibration import LayerStatistics, NeuronStatistics

VARIANCE_FLOOR = 1e-6  # a membrane that never moves has no density
Density = Callable[["NeuronStatistics"], "Tensor | None"]
"""From a neuron to the log of its density at the threshold, (C_out,), or None if not known."""


@criterion(needs="spikes", scale="log")
def sf(evidence: Evidence) -> Tensor:
    """Log of the crisis probability per weight, float64; Yao et al. 2023, arXiv 2305.12148.

    P_ij = |w_ij| r_i |gamma_j| / sqrt(sigma_j^2 + eps) N(u_th,j; mu_j, var_j)   (Eq. 12, 13, S.43)

    with the rate r_i of input channel i and, per output channel j, the BatchNorm factor and the
    density of the membrane potential before reset at the threshold. A layer that drives several
    neurons, as behind a sum of currents, has the sum of their P. A weight on a silent input scores
    -inf.
    """
    return compute_log_flip_chance(evidence, _input_rate(evidence), log_density_at_threshold)


@criterion(needs="spikes", scale="log")
def sf_std(evidence: Evidence) -> Tensor:
    """`sf` with the standard deviation of the input in place of its rate; snnprune's own.

    P_ij = |w_ij| sqrt(Var x_i) |gamma_j| / sqrt(sigma_j^2 + eps) N(u_th,j; mu_j, var_j)

    with Var x_i = E x_i^2 - (E x_i)^2, which is r_i (1 - r_i) of spikes. It is what remains of a
    pruned weight once the mean of its current is given back, as the repairs do: an input that
    spikes always is worth as little as one that is silent, and scores -inf.
    """
    return compute_log_flip_chance(evidence, variance(evidence).sqrt(), log_density_at_threshold)


@criterion(needs="spikes", scale="log")
def sf_steps(evidence: Evidence) -> Tensor:
    """`sf` with a Gaussian for each time step: mean over t of N(u_th,j; mu_tj, var_tj).

    A membrane that starts at rest is far from the threshold at first, and the steps together are no
    Gaussian even where each of them is. snnprune's own.
    """
    return compute_log_flip_chance(evidence, _input_rate(evidence), log_density_over_steps)


@criterion(needs="spikes", scale="log")
def sf_histogram(evidence: Evidence) -> Tensor:
    """`sf` with the density at the threshold taken from the histogram of u - u_th.

    No shape is assumed; `log_density_of_histogram` has the estimator. snnprune's own.
    """
    return compute_log_flip_chance(evidence, _input_rate(evidence), log_density_of_histogram)


def compute_flip_energy(evidence: Evidence) -> Tensor:
    """e_ij, float64: sqrt(sum of e_ij over the pruned i) is the chance that a spike of j flips.

    e_ij = (2 / pi) w_ij^2 Var(x_i) (|gamma_j| / sqrt(sigma_j^2 + eps) N(u_th,j; mu_j, var_j))^2

    To first order a spike flips with P = p(u_th) E|du|. For a sum du of many independent currents
    whose mean is given back, du is Gaussian and E|du| = sqrt(2 / pi) times its standard deviation.
    For several neurons the P of all add up.
    """
    return compute_squared_flip_chance(sf_std(evidence))


def _input_rate(evidence: Evidence) -> Tensor:
    """Mean |x| of each input channel, (C_in,)."""
    assert evidence.statistics is not None
    return evidence.statistics.input_rate


def log_response(statistics: LayerStatistics, density: Density) -> Tensor | None:
    """Log of the chance per unit of a layer's current that a spike changes, (C_out,) float64.

    That of all neurons that it drives together; None if the density of one is not known.
    """
    responses = []
    for drive in statistics.drives:
        log_density = density(drive.neuron)
        if log_density is None:
            return None
        responses.append(drive.bn_scale.log() + log_density + math.log(drive.time_gain))
    return torch.stack(responses).logsumexp(0)


def log_density_at_threshold(neuron: NeuronStatistics) -> Tensor:
    """log N(u_th; mu, var) per output channel, (C_out,) float64."""
    return _log_gaussian(neuron.threshold, neuron.membrane_mean, neuron.membrane_var)


def log_density_over_steps(neuron: NeuronStatistics) -> Tensor | None:
    """log of the mean over t of N(u_th; mu_t, var_t), (C_out,) float64; None if not known."""
    mean, variance = neuron.membrane_mean_step, neuron.membrane_var_step
    if mean is None or variance is None:
        return None
    return _log_gaussian(neuron.threshold, mean, variance).logsumexp(0) - math.log(len(mean))


def log_density_of_histogram(neuron: NeuronStatistics) -> Tensor | None:
    """log of the counts around the threshold as a density, (C_out,) float64; None if not known.

    n(|u - u_th| < h) / (2 h n), the kernel estimate of a uniform kernel, with
    h = (12 sqrt(pi))^(1/5) sigma n^(-1/5), which is best for a Gaussian (Silverman 1986),
    in whole bins, at least one on each side. Where nothing was counted: what the Gaussian of
    `log_density_at_threshold` says, but no more than half a count.
    """
    edges = neuron.histogram_edges
    if edges is None:
        return None
    counts = neuron.membrane_histogram[:, 1:-1]
    total = neuron.membrane_histogram.sum(1).clamp(min=1)
    width = float(edges[1] - edges[0])
    middle = int((edges < -width / 2).sum())  # bins below the threshold
    reach = _silverman(neuron.membrane_var, total).div(width).round().long()
    reach = reach.clamp(min=1, max=min(middle, counts.shape[1] - middle))
    until = torch.nn.functional.pad(counts.cumsum(1), (1, 0))
    upper, lower = ((middle + side * reach).unsqueeze(1) for side in (1, -1))
    near = (until.gather(1, upper) - until.gather(1, lower)).squeeze(1).double()
    scale = (2 * reach * width * total).double().log()
    rare = log_density_at_threshold(neuron).minimum(math.log(0.5) - scale)
    return torch.where(near > 0, near.log() - scale, rare)


def _silverman(variance: Tensor, count: Tensor) -> Tensor:
    """The half-width of a uniform kernel that suits a Gaussian of that variance."""
    best = math.pow(12 * math.sqrt(math.pi), 0.2)
    return best * variance.sqrt() * count.double().pow(-0.2)


def _log_gaussian(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    variance = variance.clamp(min=VARIANCE_FLOOR)
    return -0.5 * ((x - mean) ** 2 / variance + (2 * math.pi * variance).log())


SQUARED = 2 / math.pi
"""(E|du|)^2 / Var(du) of a Gaussian du about 0, as is the sum of many independent currents whose
mean is given back."""


def compute_flip_chance(density: Tensor, mean_change: Tensor) -> Tensor:
    """P = p(u_th) E|du|, at most 1, (C,): an estimate, no bound."""
    return (density * mean_change).clamp(max=1)


def compute_gaussian_flip_chance(density: Tensor, deviation: Tensor) -> Tensor:
    """The same for a Gaussian du about 0 of that standard deviation, at most 1, (C,)."""
    return compute_flip_chance(density * math.sqrt(SQUARED), deviation)


def compute_log_flip_chance(evidence: Evidence, effect: Tensor, density: Density) -> Tensor:
    """log P of losing each weight alone, (out, in / groups, *kernel) float64.

    E|du| is |w| times the `effect` of its input, (C_in,), times what a current is in the membrane.

    Raises:
        InputError: the calibration has no such density.
    """
    assert evidence.statistics is not None
    response = log_response(evidence.statistics, density)
    if response is None:
        raise too_old_error(evidence, "membrane statistics that this takes")
    weight = evidence.weight.double().abs()
    per_output = response.reshape(-1, *[1] * (weight.dim() - 1))
    return weight.log() + rate_per_weight(effect.log(), evidence) + per_output


def compute_squared_flip_chance(log_chance: Tensor) -> Tensor:
    """P^2 of each weight, where its `log_chance` is by the standard deviation of its du.

    Variances add up: the root of the sum over several weights of an output is the P of losing them
    all.
    """
    return SQUARED * (2 * log_chance).exp()
