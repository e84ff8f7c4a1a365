"""The spiking-firing criterion and its variants: what a weight does to a spike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.pruning.criteria.criterion import Evidence, criterion
from snnprune.pruning.criteria.density import (
    compute_log_flip_chance,
    compute_squared_flip_chance,
    log_density_at_threshold,
    log_density_of_histogram,
    log_density_over_steps,
)
from snnprune.pruning.criteria.weight import variance

if TYPE_CHECKING:
    from torch import Tensor


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

    No shape is assumed; `snnprune.pruning.criteria.density` has the estimator. snnprune's own.
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
