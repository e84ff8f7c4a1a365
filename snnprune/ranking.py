"""Choosing the lowest by position, so that the count is exact whatever the ties."""

import torch
from torch import Tensor


def lowest(scores: Tensor, count: int, *, ties_by: Tensor) -> Tensor:
    """True for the `count` lowest of `scores` (n,); equals by `ties_by` (n,), then by position."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= len(scores):
        return torch.ones_like(scores, dtype=torch.bool)
    cut = scores.kthvalue(count).values
    chosen = scores < cut
    tied = (scores == cut).nonzero().squeeze(1)
    missing = count - int(chosen.sum())
    order = ties_by[tied].argsort(stable=True)
    chosen[tied[order[:missing]]] = True
    return chosen


def shares(sizes: list[int], count: int, *, floors: list[int]) -> list[int]:
    """`count` dealt out in proportion to `sizes`, none below its floor, all whole numbers.

    The largest remainders are rounded up (Hamilton's method). Where floors alone exceed `count`
    the floors are the answer.
    """
    raised = _raised(sizes, count, floors)
    free = [index for index in range(len(sizes)) if index not in raised]
    left = count - sum(floors[index] for index in raised)
    dealt = list(floors)
    total = sum(sizes[index] for index in free)
    if not free or left <= 0 or total == 0:
        return dealt
    for index in free:
        dealt[index] = sizes[index] * left // total
    by_remainder = sorted(free, key=lambda index: -(sizes[index] * left % total))
    for index in by_remainder[: left - sum(dealt[index] for index in free)]:
        dealt[index] += 1
    return dealt


def _raised(sizes: list[int], count: int, floors: list[int]) -> set[int]:
    """The places whose floor is more than their share of what the others leave."""
    raised: set[int] = set()
    while True:
        left = count - sum(floors[index] for index in raised)
        total = sum(size for index, size in enumerate(sizes) if index not in raised)
        more = {
            index
            for index, size in enumerate(sizes)
            if index not in raised and floors[index] * total > size * left
        }
        if not more:
            return raised
        raised |= more
