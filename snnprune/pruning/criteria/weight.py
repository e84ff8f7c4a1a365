"""Criteria of the weight and of what enters the layer, and what is known of a layer's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.errors import InputError
from snnprune.pruning.criteria.criterion import Evidence, criterion
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
