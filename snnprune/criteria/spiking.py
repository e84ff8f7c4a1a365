"""The spiking-firing criterion: what a weight does to a spike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from snnprune.criteria.criterion import Evidence, criterion

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.calibration import DriveStatistics, NeuronStatistics

VARIANCE_FLOOR = 1e-6  # a membrane that never moves has no density


@criterion(needs="spikes", scale="log")
def sf(evidence: Evidence) -> Tensor:
    """Log of the crisis probability per weight, float64; Yao et al. 2023, arXiv 2305.12148.

    P_ij = |w_ij| r_i |gamma_j| / sqrt(sigma_j^2 + eps) N(u_th,j; mu_j, var_j)   (Eq. 12, 13, S.43)

    with the rate r_i of input channel i and, per output channel j, the BatchNorm factor and the
    density of the membrane potential before reset at the threshold. A layer that drives several
    neurons, as behind a sum of currents, has the sum of their P. A weight on a silent input scores
    -inf.
    """
    statistics = evidence.statistics
    assert statistics is not None
    per_output = torch.stack([_log_effect(drive) for drive in statistics.drives])
    log_rate = rate_per_weight(statistics.input_rate, evidence).log()
    return (
        evidence.weight.double().abs().log()
        + log_rate
        + _along_outputs(per_output.logsumexp(0), evidence.weight)
    )


def _log_effect(drive: DriveStatistics) -> Tensor:
    """Log of the chance per unit of current that a spike of the neuron changes, (C_out,)."""
    density = log_density_at_threshold(drive.neuron)
    return drive.bn_scale.log() + density + math.log(drive.time_gain)


def log_density_at_threshold(neuron: NeuronStatistics) -> Tensor:
    """log N(u_th; mu, var) per output channel, (C_out,) float64."""
    variance = neuron.membrane_var.clamp(min=VARIANCE_FLOOR)
    distance = neuron.threshold - neuron.membrane_mean
    return -0.5 * (distance**2 / variance + (2 * math.pi * variance).log())


def rate_per_weight(rate: Tensor, evidence: Evidence) -> Tensor:
    """The rate of each weight's input: (C_in,) to (out, in / groups, 1, ...)."""
    outputs, inputs = evidence.weight.shape[:2]
    by_group = rate.view(evidence.groups, 1, inputs)
    per_output = by_group.expand(-1, outputs // evidence.groups, -1).reshape(outputs, inputs)
    return per_output.reshape(outputs, inputs, *[1] * (evidence.weight.dim() - 2))


def _along_outputs(values: Tensor, weight: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (weight.dim() - 1))
