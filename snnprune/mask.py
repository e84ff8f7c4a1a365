"""Masks: True = kept. They alone say what is alive; a kept weight may be 0.0."""

from collections.abc import Mapping

import torch
from torch import Tensor

Masks = Mapping[str, Tensor]
"""Bool tensors by weight key, each in its weight's shape."""


def pruned(masks: Masks) -> int:
    """How many weights are pruned."""
    return prunable(masks) - kept(masks)


def prunable(masks: Masks) -> int:
    """How many weights there are."""
    return sum(mask.numel() for mask in masks.values())


def kept(masks: Masks) -> int:
    """How many weights are kept."""
    return sum(int(mask.sum()) for mask in masks.values())


def masked(tensors: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """All of `tensors` in their order, 0 where a mask is False."""
    return {
        key: torch.where(masks[key], tensor, torch.zeros_like(tensor)) if key in masks else tensor
        for key, tensor in tensors.items()
    }
