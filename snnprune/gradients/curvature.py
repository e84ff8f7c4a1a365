"""The Hessian times the gradient."""

import math

from torch import Tensor, nn

from snnprune.gradients.learning import holding
from snnprune.gradients.means import mean_gradient
from snnprune.gradients.passes import Passes

STEP = 1e-3
"""How far weights move along the gradient, in shares of their norm: rounding of float32 gradients
is far below it, and it is wide enough to meet spikes that change."""


def hessian_gradient(passes: Passes) -> dict[str, Tensor]:
    """H g of the mean loss, by (g(w + e g) - g(w - e g)) / 2e.

    A difference, because the backward passes of many neurons cannot be differentiated once more.
    Weights that are 0 are taken for pruned and stay 0.
    """
    network = passes.network
    direction = {
        key: slope * (network.weight(key).cpu() != 0)
        for key, slope in mean_gradient(passes).items()
    }
    weights: dict[str, nn.Parameter] = {key: network.module.get_parameter(key) for key in direction}
    length = _norm(direction)
    if length == 0:
        return direction
    step = STEP * _norm({key: weight.detach() for key, weight in weights.items()}) / length
    ahead, behind = (
        _gradient_at(passes, weights, direction, step=way * step) for way in (1.0, -1.0)
    )
    return {key: (ahead[key] - behind[key]) / (2 * step) for key in direction}


def _gradient_at(
    passes: Passes, weights: dict[str, nn.Parameter], direction: dict[str, Tensor], *, step: float
) -> dict[str, Tensor]:
    """The mean gradient where the weights are `step` further along `direction`."""
    there = {
        key: (weight.detach().double() + step * direction[key].to(weight.device)).to(weight.dtype)
        for key, weight in weights.items()
    }
    with holding(weights, there):
        return mean_gradient(passes)


def _norm(tensors: dict[str, Tensor]) -> float:
    """Of all of them together."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
