"""Criteria that look at the weight alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.criteria.criterion import Evidence, criterion
from snnprune.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor


@criterion(needs="weight")
def magnitude(evidence: Evidence) -> Tensor:
    """|w|; Han et al. 2015, arXiv 1506.02626."""
    return evidence.weight.abs()


@criterion(needs="weight")
def random(evidence: Evidence) -> Tensor:
    """Uniform in [0, 1), the same for the same seed and weight key: the baseline to beat."""
    import torch

    drawn = generator(evidence.seed, "random criterion", evidence.key)
    # float64: ties would fall back to magnitude
    return torch.rand(evidence.weight.shape, generator=drawn, dtype=torch.float64)
