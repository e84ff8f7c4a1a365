"""The surgeon's order of removal against one update of H^-1 for each weight, on one thread.

python tests/benchmarks/bench_elimination.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from snnprune.measure.second_moments import compute_losses, invert

CASES = ((144, 16), (288, 8), (576, 8), (1152, 3))  # weights of an output, outputs


def eliminate_one_by_one(inverse: Tensor, weights: Tensor) -> Tensor:
    """The values of rows (R, d), the row and column of what goes taken out of H^-1 each time."""
    values = torch.empty_like(weights)
    left = torch.arange(len(inverse)).repeat(len(weights), 1)
    inverses, level = inverse.repeat(len(weights), 1, 1), weights.new_zeros(len(weights), 1)
    while left.shape[1]:
        cost = weights**2 / inverses.diagonal(dim1=1, dim2=2)
        lowest, order = cost.sort(1)
        gone, stay = order[:, :1], order[:, 1:]
        level = torch.maximum(level, lowest[:, :1])
        values.scatter_(1, left.gather(1, gone), level)
        column = inverses.gather(2, gone.unsqueeze(1).expand(-1, inverses.shape[1], -1))
        share = column / column.gather(1, gone.unsqueeze(2))
        weights = (weights - share.squeeze(2) * weights.gather(1, gone)).gather(1, stay)
        inverses = inverses - share @ column.mT
        inverses = inverses.gather(1, stay.unsqueeze(2).expand(-1, -1, inverses.shape[2]))
        inverses = inverses.gather(2, stay.unsqueeze(1).expand(-1, stay.shape[1], -1))
        left = left.gather(1, stay)
    return values


def measure(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """CPU-seconds, and what it gives."""
    begun = time.process_time()
    values = work()
    return time.process_time() - begun, values


def main() -> None:
    """One line for each size."""
    torch.set_num_threads(1)
    for size, rows in CASES:
        draws = torch.Generator().manual_seed(0)
        spikes = (torch.rand(4 * size, size, generator=draws) < 0.2).double()
        inverse = invert(spikes.T @ spikes / len(spikes), 0.01)
        weights = torch.randn(rows, size, generator=draws, dtype=torch.float64)
        plain, expected = measure(partial(eliminate_one_by_one, inverse, weights))
        ours, found = measure(partial(compute_losses, inverse[None], weights[None], exact=True))
        apart = float(((found[0] - expected).abs() / expected).max())
        same = torch.equal(found[0].argsort(1), expected.argsort(1))
        print(f"d {size}, {rows} rows: {plain / ours:.0f} x, apart {apart:.0e}, same order {same}")


if __name__ == "__main__":
    main()
