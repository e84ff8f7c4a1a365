"""Masks: counting and applying them, and keeping the highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

Masks = Mapping[str, Tensor]
"""Bool tensors by weight key, each in its weight's shape."""


@dataclass(frozen=True, kw_only=True)
class RowBounds:
    """How many weights of each output channel of a layer are kept, as far as it has them."""

    least: int = 0
    most: int | None = None
    """None: all."""

    def ease(self, size: int, rest: float) -> RowBounds:
        """The same on the way from rows of `size` weights, with a `rest` of it in [0, 1] to go."""
        if self.most is None or self.most >= size:
            return self
        return replace(self, most=round(self.most + (size - self.most) * rest))


def count_pruned(masks: Masks) -> int:
    """How many weights are pruned."""
    return count_prunable(masks) - count_kept(masks)


def count_prunable(masks: Masks) -> int:
    """How many weights there are."""
    return sum(mask.numel() for mask in masks.values())


def count_kept(masks: Masks) -> int:
    """How many weights are kept."""
    return sum(int(mask.sum()) for mask in masks.values())


def apply_masks(tensors: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """All of `tensors` in their order, 0 where a mask is False."""
    return {
        key: torch.where(masks[key], tensor, torch.zeros_like(tensor)) if key in masks else tensor
        for key, tensor in tensors.items()
    }


def select_lowest(scores: Tensor, count: int, *, ties_by: Tensor) -> Tensor:
    """True for the `count` lowest of `scores` (n,); equals by `ties_by` (n,), then by position."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= len(scores):
        return torch.ones_like(scores, dtype=torch.bool)
    cut = _find_nth_lowest(scores, count)
    chosen = scores < cut
    tied = (scores == cut).nonzero().squeeze(1)
    missing = count - int(chosen.sum())
    order = ties_by[tied].argsort(stable=True)
    chosen[tied[order[:missing]]] = True
    return chosen


def _find_nth_lowest(scores: Tensor, nth: int) -> Tensor:
    """The value of which `nth` of (n,) are no higher, as a tensor ()."""
    if scores.device.type != "cpu":
        return scores.kthvalue(nth).values
    # NumPy partitions several times faster than torch, but knows no bfloat16
    values = scores.detach().float() if scores.element_size() < 4 else scores.detach()
    return torch.from_numpy(np.partition(values.numpy(), nth - 1)[nth - 1 : nth])[0]


def select_highest(values: Tensor, count: int) -> Tensor:
    """True for the `count` highest of `values` (n,); of equals the later ones.

    These are the ones that `snnprune.masks.select_lowest` leaves.
    """
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= len(values):
        return torch.ones_like(values, dtype=torch.bool)
    return (
        _select_by_partition(values, count)
        if values.device.type == "cpu"
        else _select_by_sort(values, count)
    )


def select_in_rows(values: Tensor, count: int, bounds: RowBounds) -> Tensor:
    """True for the `count` highest of `values` (rows, n) that leave each row within its bounds.

    -inf says what may not be chosen. The rows' own highest up to `bounds.least` come first, those
    beyond `bounds.most` never: fewer than `count` are chosen where these bounds leave no more, and
    more where they ask for more. No other choice has a greater sum (of a matroid a greedy one has
    the greatest); of equals the later ones, as in `select_highest`.
    """
    rank = rank_in_rows(values)
    may = values > -torch.inf
    first = may & (rank < bounds.least)
    free = may & ~first
    if bounds.most is not None:
        free &= rank < bounds.most
    left = min(max(0, count - int(first.sum())), int(free.sum()))
    rest = values.masked_fill(~free, -torch.inf)
    return first | select_highest(rest.flatten(), left).view(values.shape)


def rank_in_rows(values: Tensor) -> Tensor:
    """From 0 for the highest value of each row (rows, n); of equals the later ones first."""
    order = values.argsort(dim=1, stable=True).flip(1)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _select_by_partition(values: Tensor, count: int) -> Tensor:
    """About 10 times faster on a CPU than torch's kthvalue and topk, 60 times than a sort."""
    array = values.numpy()
    cut = np.partition(array, -count)[-count]
    kept = array > cut
    tied = np.flatnonzero(array == cut)
    kept[tied[np.count_nonzero(kept) - count :]] = True
    return torch.from_numpy(kept)


def _select_by_sort(values: Tensor, count: int) -> Tensor:
    """Without a value that the host would have to wait for."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    kept[values.argsort(stable=True)[-count:]] = True
    return kept
