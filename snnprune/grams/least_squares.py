"""Least squares for many rows at once, each with its own weights to keep."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-6  # of the residual, relative to the right side
STEPS = 200  # of conjugate gradients at most


def fitted(second: Tensor, cross: Tensor, keep: Tensor, start: Tensor, *, ridge: float) -> Tensor:
    """Weights W (groups, out, d) that minimise E|y - W x|^2 + ridge s |W - start|^2 where kept.

    `second` is E[x x'], (groups, d, d), `cross` E[x y'], (groups, d, out), both float64; `keep`
    (groups, out, d) says which weights there are, all others are 0. s is the mean of E[x^2].

    Conjugate gradients, preconditioned by the diagonal, on all rows together: what costs is one
    product of matrices a step, however many weights a row keeps.
    """
    scale = second.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(second.dtype).tiny)
    pull = (ridge * scale).view(-1, 1, 1)
    diagonal = second.diagonal(dim1=1, dim2=2).unsqueeze(1) + pull

    def applied(w: Tensor) -> Tensor:
        return (w @ second + pull * w) * keep

    weights = start * keep
    right = (cross.mT + pull * weights) * keep
    residual = right - applied(weights)
    enough = TOLERANCE * right.norm(dim=2, keepdim=True)
    preconditioned = residual / diagonal
    direction, slope = preconditioned, _dot(residual, preconditioned)
    for _ in range(STEPS):
        if bool((residual.norm(dim=2, keepdim=True) <= enough).all()):
            break
        image = applied(direction)
        length = _ratio(slope, _dot(direction, image))
        weights = weights + length * direction
        residual = residual - length * image
        preconditioned = residual / diagonal
        before, slope = slope, _dot(residual, preconditioned)
        direction = preconditioned + _ratio(slope, before) * direction
    return weights


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(2, keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where a row is done and both are 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))
