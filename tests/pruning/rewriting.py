"""The same function of a network, with other statistics in its BatchNorms."""

import torch
from torch import Tensor, nn

FORMS = ("frozen", "stale")


def rewrite(module: nn.Module, form: str) -> None:
    """Give every BatchNorm the statistics 0 and 1, or a variance four times too large and a mean
    off by half a deviation; scale and shift make up for it.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            mean, variance = (norm.get_buffer(f"running_{kind}") for kind in ("mean", "var"))
            _take(norm, *_statistics(form, mean.clone(), variance.clone()))


def _statistics(form: str, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    if form == "frozen":
        return torch.zeros_like(mean), torch.ones_like(variance)
    return mean + 0.5 * variance.sqrt(), 4 * variance


@torch.no_grad()
def _take(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    held_mean, held_variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    factor = norm.weight / (held_variance + norm.eps).sqrt()
    norm.bias.add_(factor * (mean - held_mean))
    norm.weight.copy_(factor * (variance + norm.eps).sqrt())
    held_mean.copy_(mean)
    held_variance.copy_(variance)
