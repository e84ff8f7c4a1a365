"""Where the cut goes through the scores of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.criteria import Scale
from snnprune.quantities import Natural

BINS = 48


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Weights of a layer by the logarithm of their score to base 10."""

    edges: tuple[float, ...]
    """(bins + 1,); empty where no score is a finite logarithm."""
    kept: tuple[Natural, ...]
    pruned: tuple[Natural, ...]
    lowest: tuple[Natural, Natural]
    """Weights whose score has no logarithm, kept and pruned: worth nothing, or 0 already."""


def score_histogram(scores: Tensor, mask: Tensor, scale: Scale) -> ScoreHistogram:
    """Of the scores of one layer, on the `scale` of their criterion, and its mask of kept weights.

    Where a later step or a repair has chosen other weights, kept and pruned overlap.
    """
    values, alive = scores.double().flatten(), mask.flatten()
    # of linear scores those that are not positive have none either
    logs = values / torch.log(torch.tensor(10.0)) if scale == "log" else values.log10()
    finite = logs.isfinite()
    lowest = int((~finite & alive).sum()), int((~finite & ~alive).sum())
    if not bool(finite.any()):
        return ScoreHistogram(edges=(), kept=(), pruned=(), lowest=lowest)
    low, high = logs[finite].aminmax()
    high = torch.maximum(high, low + 1e-6)  # one value alone has a width too
    edges = torch.linspace(float(low), float(high), BINS + 1, dtype=torch.float64)
    bins = ((logs - low) / (high - low) * BINS).clamp(0, BINS - 1)
    return ScoreHistogram(
        edges=tuple(edges.tolist()),
        kept=_counts(bins[finite & alive]),
        pruned=_counts(bins[finite & ~alive]),
        lowest=lowest,
    )


def _counts(bins: Tensor) -> tuple[int, ...]:
    return tuple(torch.bincount(bins.long(), minlength=BINS).tolist())
