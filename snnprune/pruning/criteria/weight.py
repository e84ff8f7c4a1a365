"""Criteria of the weight, of what enters its layer, and of what the loss makes of it.

And what is known of a layer's inputs; of gradients, see `snnprune.measure.gradients`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.errors import InputError
from snnprune.pruning.criteria import Evidence, criterion
from snnprune.runtime import make_generator

if TYPE_CHECKING:
    from torch import Tensor


@criterion(needs="weight")
def magnitude(evidence: Evidence) -> Tensor:
    """|w|; Han et al. 2015, arXiv 1506.02626."""
    return evidence.weight.abs()


@criterion(needs="weight")
def random(evidence: Evidence) -> Tensor:
    """Uniform in [0, 1), the same for the same seed and weight key: the baseline to beat."""
    import torch

    drawn = make_generator(evidence.seed, "random criterion", evidence.key)
    # float64: ties would fall back to magnitude
    return torch.rand(evidence.weight.shape, generator=drawn, dtype=torch.float64)


@criterion(needs="inputs")
def wanda(evidence: Evidence) -> Tensor:
    """|w_ij| sqrt(E x_i^2), float64; Sun et al. 2024, arXiv 2306.11695.

    The original takes the norm ||x_i||_2 over all positions. Here it is divided by the root of
    their number, which changes nothing within a layer and makes layers comparable that see more or
    fewer places. A convolution's input channel has one norm for all places of its kernel. With
    whom a weight is compared, which the original limits to those of the same output, is left to the
    allocation.
    """
    norm = rate_per_weight(mean_square(evidence).sqrt(), evidence)
    return evidence.weight.double().abs() * norm


def mean_square(evidence: Evidence) -> Tensor:
    """E x^2 of each input channel, (C_in,) float64.

    Raises:
        InputError: the calibration is of before that was taken.
    """
    statistics = evidence.statistics
    assert statistics is not None
    if statistics.input_square is not None:
        return statistics.input_square
    if statistics.input_values == "binary":
        return statistics.input_rate
    raise too_old_error(evidence, "mean squares of inputs")


def variance(evidence: Evidence) -> Tensor:
    """E x^2 - (E x)^2 of each input channel, (C_in,) float64; r (1 - r) of spikes.

    Raises:
        InputError: the calibration is of before that was taken.
    """
    statistics = evidence.statistics
    assert statistics is not None
    # of spikes and counts |x| is x
    mean = statistics.input_rate if statistics.input_mean is None else statistics.input_mean
    return (mean_square(evidence) - mean.square()).clamp(min=0)


def too_old_error(evidence: Evidence, lacks: str) -> InputError:
    """That the statistics are of a version that did not take what a criterion needs."""
    return InputError(
        f"the calibration has no {lacks}", field=evidence.key, hint="run snnprune calibrate again"
    )


def rate_per_weight(values: Tensor, evidence: Evidence) -> Tensor:
    """What is known of each weight's input: (C_in,) to (out, in / groups, 1, ...)."""
    outputs, inputs = evidence.weight.shape[:2]
    by_group = values.view(evidence.groups, 1, inputs)
    per_output = by_group.expand(-1, outputs // evidence.groups, -1).reshape(outputs, inputs)
    return per_output.reshape(outputs, inputs, *[1] * (evidence.weight.dim() - 2))


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
