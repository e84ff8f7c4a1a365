"""Gradients of weights in absolute values."""

from torch import Tensor

from snnprune.gradients.passes import Means, Passes
from snnprune.gradients.uses import made_of, rows, to_parameter, watched


def absolute_gradient(passes: Passes) -> dict[str, Tensor]:
    """E[sum over time and places of |x| |dL/dI|]: no two of them cancel."""
    means = Means()
    with watched(passes.network) as (uses, weights, start):
        for losses in passes.losses(start):
            for use, slope in zip(uses.found, uses.slopes(losses), strict=True):
                if slope is not None:
                    layer = passes.network.layers[use.key]
                    x, delta = rows(use.call.input, layer), rows(use.call.arranged(slope), layer)
                    gradient = made_of(use.call, x.abs(), delta.abs())
                    means.add(use.key, to_parameter(gradient, use.call, weights[use.key]).abs())
            means.samples += len(losses)
    return means.result()
