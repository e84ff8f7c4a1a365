"""Criteria that ask what the loss makes of a weight; see `snnprune.measure.gradients`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.pruning.criteria.criterion import Evidence, criterion

if TYPE_CHECKING:
    from torch import Tensor


def _get_weight_and_gradient(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """The weight and what a backward pass found for it, float64."""
    weight, found = evidence.weight.double(), evidence.found
    assert found is not None
    return weight, found.to(weight.device)


def _compute_first_order(evidence: Evidence) -> Tensor:
    weight, gradient = _get_weight_and_gradient(evidence)
    return (weight * gradient).abs()


@criterion(needs="gradient")
def taylor(evidence: Evidence) -> Tensor:
    """|w E[dL/dw]|: to first order what the loss changes by when the weight goes.

    The square root of the first-order importance of Molchanov et al. 2019, arXiv 1906.10771, for a
    single weight, with the gradient of all calibration data together.
    """
    return _compute_first_order(evidence)


@criterion(needs="gradient")
def snip(evidence: Evidence) -> Tensor:
    """|w E[dL/dw]|, the sensitivity of the loss to a switch c of the weight c w.

    Lee et al. 2019, arXiv 1810.02340. The original divides by the sum over all weights, which
    changes no ranking and is left out, and takes one batch at initialisation; here it is a trained
    network and all calibration data, so that it ranks as `taylor` does.
    """
    return _compute_first_order(evidence)


@criterion(needs="squared-gradient", degree=2)
def fisher(evidence: Evidence) -> Tensor:
    """w^2 E[(dL_n/dw)^2] / 2: to second order what the loss grows by, at a minimum of it.

    With the diagonal of the empirical Fisher matrix for that of the Hessian; Theis et al. 2018,
    arXiv 1801.05787, for single weights.
    """
    weight, square = _get_weight_and_gradient(evidence)
    return 0.5 * weight.square() * square


@criterion(needs="hessian-gradient")
def grasp(evidence: Evidence) -> Tensor:
    """w (H g): how much less gradient flows when the weight goes; may be negative.

    Wang et al. 2020, arXiv 2002.07376, remove the highest of -w (H g). The original divides
    logits by a temperature of 200 and looks at an initialisation; here it is a trained network and
    the loss as it is.
    """
    weight, product = _get_weight_and_gradient(evidence)
    return weight * product


@criterion(needs="flow")
def synflow(evidence: Evidence) -> Tensor:
    """|w| dR/d|w|: the sum over all paths through the weight of the products of their |w|.

    Tanaka et al. 2020, arXiv 2006.05467, with spiking neurons replaced by the identity. The
    original ranks anew in 100 steps, which `--steps` does.
    """
    weight, flow = _get_weight_and_gradient(evidence)
    return weight.abs() * flow


@criterion(needs="absolute-gradient")
def sf_loss(evidence: Evidence) -> Tensor:
    """|w| E[sum over time and places of |x| |dL/dI|], x the input of the weight, I its current.

    To first order a bound on what the loss changes by through each of the spikes that the weight
    carries, so that gains at one time or place do not cancel losses at another. Where `sf` ends at
    the spikes of the next neuron, this goes on to the loss. snnprune's own.
    """
    weight, effect = _get_weight_and_gradient(evidence)
    return weight.abs() * effect
