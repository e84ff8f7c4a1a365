"""Surrogate derivatives: what stands for the derivative of the Heaviside step in a backward pass.

Each takes `x = u - u_th` of any shape and gives ds/du in that shape; x = 0 is the threshold.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

SurrogateName = Literal["atan", "triangle", "sigmoid"]


def atan(x: Tensor, alpha: float = 2.0) -> Tensor:
    """alpha/2 / (1 + (pi/2 alpha x)^2); Fang et al. 2021, arXiv 2007.05785."""
    # as 1 / (2/alpha + pi^2/2 alpha x^2): two sweeps instead of five
    return torch.addcmul(x.new_tensor(2 / alpha), x, x, value=math.pi**2 / 2 * alpha).reciprocal_()


def triangle(x: Tensor, width: float = 1.0) -> Tensor:
    """max(0, width - |x|) / width^2; Bellec et al. 2018, arXiv 1803.09574."""
    return x.abs().neg_().add_(width).clamp_(min=0).mul_(1 / width**2)


def sigmoid(x: Tensor, alpha: float = 4.0) -> Tensor:
    """alpha sigma(alpha x) (1 - sigma(alpha x)); Neftci et al. 2019, arXiv 1901.09948."""
    rising = (x * alpha).sigmoid_()
    return (1 - rising).mul_(rising).mul_(alpha)


SURROGATES: dict[SurrogateName, Callable[[Tensor], Tensor]] = {
    "atan": atan,
    "triangle": triangle,
    "sigmoid": sigmoid,
}
