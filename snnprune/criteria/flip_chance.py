"""The chance that a change of the membrane flips its spike, to first order: P = p(u_th) E|du|.

Eq. 12 of Yao et al. 2023, arXiv 2305.12148. The density p(u_th) is that of `criteria.density`, and
du the change of the membrane before reset.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from snnprune.criteria.density import Density, log_response
from snnprune.criteria.inputs import rate_per_weight, too_old

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.criteria.criterion import Evidence

SQUARED = 2 / math.pi
"""(E|du|)^2 / Var(du) of a Gaussian du about 0, as is the sum of many independent currents whose
mean is given back."""


def flip_chance(density: Tensor, mean_change: Tensor) -> Tensor:
    """P = p(u_th) E|du|, at most 1, (C,): an estimate, no bound."""
    return (density * mean_change).clamp(max=1)


def gaussian_flip_chance(density: Tensor, deviation: Tensor) -> Tensor:
    """The same for a Gaussian du about 0 of that standard deviation, at most 1, (C,)."""
    return flip_chance(density * math.sqrt(SQUARED), deviation)


def log_flip_chance(evidence: Evidence, effect: Tensor, density: Density) -> Tensor:
    """log P of losing each weight alone, (out, in / groups, *kernel) float64.

    E|du| is |w| times the `effect` of its input, (C_in,), times what a current is in the membrane.

    Raises:
        InputError: the calibration has no such density.
    """
    assert evidence.statistics is not None
    response = log_response(evidence.statistics, density)
    if response is None:
        raise too_old(evidence, "membrane statistics that this takes")
    weight = evidence.weight.double().abs()
    per_output = response.reshape(-1, *[1] * (weight.dim() - 1))
    return weight.log() + rate_per_weight(effect.log(), evidence) + per_output


def squared_gaussian_flip_chance(log_chance: Tensor) -> Tensor:
    """P^2 of each weight, where its `log_chance` is by the standard deviation of its du.

    Variances add up: the root of the sum over several weights of an output is the P of losing them
    all.
    """
    return SQUARED * (2 * log_chance).exp()
