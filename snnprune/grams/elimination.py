"""The order in which the Optimal Brain Surgeon takes weights out, each row by itself."""

from __future__ import annotations

import torch
from torch import Tensor

WORK = 1e11  # of multiplications, some 5 s on a CPU core
MEMORY = 2**27  # bytes of the inverses that are in work


def losses(inverses: Tensor, weights: Tensor, *, share: float | None = None) -> Tensor:
    """What the removal of each weight adds to E|dW x|^2, where those left make up for it.

    `inverses` has H^-1 of H = E[x x'], (groups, d, d) float64, see `inverse_of`; `weights` is
    (groups, out, d). From each row the weight of the least w_q^2 / [H^-1]_qq is taken out, the
    others make up for it, H^-1 loses its row and column, and so on (Hassibi and Stork 1993; row by
    row as Frantar and Alistarh 2022, arXiv 2208.11580). A row's values never fall on the way, so
    that they rank the weights of a row in the order of removal.

    One at a time where that is little work. In a wide layer a `share` of the weights that are left
    goes at a time; where it is 1, the values are those of the first look.
    """
    share = _share(weights) if share is None else share
    found = torch.empty_like(weights, dtype=torch.float64)
    for group, (inverse, rows) in enumerate(zip(inverses, weights.double(), strict=True)):
        at_once = max(1, MEMORY // (8 * inverse.numel()))
        for first in range(0, len(rows), at_once):
            some = slice(first, first + at_once)
            found[group, some] = _eliminated(inverse, rows[some], share)
    return found


def inverse_of(matrix: Tensor, ridge: float) -> Tensor:
    """The inverse of `matrix` (..., d, d) with `damping` added to its diagonal."""
    raised = matrix.clone()
    raised.diagonal(dim1=-2, dim2=-1).add_(damping(matrix, ridge).unsqueeze(-1))
    return torch.cholesky_inverse(torch.linalg.cholesky(raised))


def damping(matrix: Tensor, ridge: float) -> Tensor:
    """`ridge` times the mean of the diagonal of `matrix` (..., d, d)."""
    return ridge * matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)


def _share(weights: Tensor) -> float:
    groups, out, size = weights.shape
    share = groups * out * float(size) ** 3 / WORK
    return min(1.0, share) if share * size > 1 else 0.0


def _eliminated(inverse: Tensor, weights: Tensor, share: float) -> Tensor:
    """The values of rows (R, d) under one H^-1 (d, d)."""
    levels = torch.empty_like(weights)
    left = torch.arange(len(inverse), device=weights.device).expand(len(weights), -1)
    inverses = inverse.expand(len(weights), -1, -1)
    level = weights.new_zeros(len(weights), 1)
    while left.shape[1]:
        count = max(1, int(share * left.shape[1]))
        saliency = weights**2 / inverses.diagonal(dim1=1, dim2=2)
        lowest, order = saliency.sort(1)
        gone, stay = order[:, :count], order[:, count:]
        risen = torch.maximum(lowest[:, :count].cummax(1).values, level)
        levels.scatter_(1, left.gather(1, gone), risen)
        level, left = risen[:, -1:], left.gather(1, stay)
        if left.shape[1]:
            inverses, weights = _without(inverses, weights, gone, stay)
    return levels


def _without(
    inverses: Tensor, weights: Tensor, gone: Tensor, stay: Tensor
) -> tuple[Tensor, Tensor]:
    """H^-1 (R, n, n) and weights (R, n) of what stays, once the weights of `gone` are 0."""
    columns = inverses.gather(2, gone.unsqueeze(1).expand(-1, inverses.shape[1], -1))
    among = columns.gather(1, gone.unsqueeze(2).expand(-1, -1, gone.shape[1]))
    across = columns.gather(1, stay.unsqueeze(2).expand(-1, -1, gone.shape[1]))
    share = torch.linalg.solve(among, across.mT).mT  # of what goes in each that stays
    rows = inverses.gather(1, stay.unsqueeze(2).expand(-1, -1, inverses.shape[2]))
    kept = rows.gather(2, stay.unsqueeze(1).expand(-1, stay.shape[1], -1))
    compensated = weights.gather(1, stay) - (share @ weights.gather(1, gone).unsqueeze(2)).squeeze(
        2
    )
    return kept - share @ across.mT, compensated
