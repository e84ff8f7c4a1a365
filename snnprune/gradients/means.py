"""The mean gradient."""

from torch import Tensor

from snnprune.gradients.learning import differentiable
from snnprune.gradients.passes import Means, Passes, slopes


def mean_gradient(passes: Passes) -> dict[str, Tensor]:
    """E[dL/dw], the mean over samples."""
    means = Means()
    with differentiable(passes.network) as weights, passes.network.reset_between_batches() as start:
        for losses in passes.losses(start):
            for key, slope in zip(weights, slopes(losses, list(weights.values())), strict=True):
                means.add(key, slope)
            means.samples += len(losses)
    return means.result()
