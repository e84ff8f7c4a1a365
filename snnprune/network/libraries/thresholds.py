"""Thresholds as neurons keep them, in the shape in which they are told."""

import torch
from torch import Tensor


def per_channel(threshold: Tensor | float) -> Tensor:
    """() or (C,) from any shape that a membrane (N, C, ...) takes part in; without gradient.

    Where thresholds differ within a channel it is their mean over everything.
    """
    known = torch.as_tensor(threshold).detach()
    channels = [length for length in known.shape if length > 1]
    return known.reshape(channels) if len(channels) < 2 else known.mean()
