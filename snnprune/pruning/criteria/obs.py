"""Criteria by the second moments of what enters a layer: what a weight is worth once the others
make up for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from snnprune.measure.second_moments import compute_losses, invert
from snnprune.pruning.criteria import Evidence, criterion
from snnprune.pruning.criteria.spiking import log_density_at_threshold, log_response

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.measure.calibration import LayerStatistics
    from snnprune.measure.second_moments import Gram


RIDGE = 1e-2  # of the mean of the diagonal: inputs that always meet leave H singular


@criterion(needs="gram", degree=2)
def obs(evidence: Evidence) -> Tensor:
    """Optimal Brain Surgeon, row by row; Hassibi and Stork 1993, Frantar and Alistarh 2022.

    w_q^2 / [H^-1]_qq, H = E[x x'] of the layer's own inputs, in the exact order of removal: after
    each the rest of the row makes up for it (arXiv 2208.11580, Algorithm 1). See
    `measure.second_moments`.
    """
    return _compute_losses(evidence)


@criterion(needs="membrane-gram", degree=2)
def obs_membrane(evidence: Evidence) -> Tensor:
    """`obs` for spiking neurons: H = E[(M x)(M x)'], M the decay of the membrane over the steps.

    What counts is not the error of a current but that of the membrane potential, in which the
    errors of earlier steps live on; resets are left out.
    """
    return _compute_losses(evidence)


@criterion(needs="membrane-gram", degree=2)
def sbc(evidence: Evidence) -> Tensor:
    """Spiking Brain Compression: the surgeon on the distance of spike trains; Shi et al. 2025.

    Their distance comes down to that of membranes without resets (arXiv 2506.03996), so H is that
    of `obs_membrane`; means count in it, as nothing behind the layer is changed.
    """
    assert evidence.gram is not None
    return _compute_losses(evidence, evidence.gram.second)


@criterion(needs="membrane-gram", degree=2)
def sf_obs(evidence: Evidence) -> Tensor:
    """The spiking-firing criterion for weights whose neighbours make up for them; snnprune's own.

    score_ij = loss_ij (|gamma_j| / sqrt(sigma_j^2 + eps) N(u_th,j; mu_j, var_j))^2

    loss_ij is what `obs_membrane` gives: the mean square that the removal of w_ij adds to the error
    of the membrane current, after the others of its row have made up for what they can. The factor
    is that of Eq. 12 and 13 (Yao et al. 2023): the chance per unit of error that a spike changes.
    So the score is, to first order, the square of the probability that removing the weight changes
    a spike. Where several neurons are driven their factors are added; where none is known, as in
    the last layer, the density is that of a Gaussian as wide as the current, at its mean.
    """
    return _compute_losses(evidence) * flip_gain(
        evidence.weight.double(), evidence.gram, evidence.statistics
    ).reshape(-1, *[1] * (evidence.weight.dim() - 1))


def flip_gain(weight: Tensor, gram: Gram | None, statistics: LayerStatistics | None) -> Tensor:
    """The squared chance of a changed spike per squared error of the current, (C_out,) float64."""
    assert gram is not None
    if statistics is not None and statistics.drives:
        response = log_response(statistics, log_density_at_threshold)
        assert response is not None  # a Gaussian always has a density
        return response.mul(2).exp()
    rows = reshape_by_group(weight.to(gram.second.device), gram)
    variance = ((rows @ gram.compute_matrix()) * rows).sum(2).flatten()
    return 1 / (2 * math.pi * variance.clamp(min=1e-12)).to(weight.device)


def reshape_by_group(weight: Tensor, gram: Gram) -> Tensor:
    """A weight as rows (groups, out / groups, d)."""
    groups, size, _ = gram.second.shape
    return weight.reshape(groups, -1, size)


def _compute_losses(evidence: Evidence, matrix: Tensor | None = None) -> Tensor:
    assert evidence.gram is not None
    if matrix is None:
        matrix = evidence.gram.compute_matrix()  # on the network's device, the weight on the CPU
    rows = reshape_by_group(evidence.weight.double(), evidence.gram).to(matrix.device)
    return compute_losses(invert(matrix, RIDGE), rows).reshape(evidence.weight.shape).cpu()
