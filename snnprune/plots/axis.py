"""An axis of sparsities on which 90, 95 and 98 % lie well apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUND = (  # the first have the first choice
    *(0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.95, 0.98, 0.8, 0.995, 0.998, 0.7, 0.3),
    *(0.2, 0.6, 0.4, 0.1, 0.85),
)
APART = 0.07  # of the axis, between two labels
MARGIN = 0.04  # of the axis, beside the outermost points
MOST = 0.99999  # sparsity; 1 lies at infinity


def remaining(sparsity: float) -> float:
    """Where a sparsity in [0, 1) lies: each time the weights are halved, it is as much further."""
    return float(-np.log2(1 - min(sparsity, MOST)))


def show_sparsities(axes: Axes, sparsities: Sequence[float]) -> None:
    """Let the x axis of `axes`, whose points lie at `remaining`, span `sparsities`."""
    low, high = remaining(min(sparsities)), remaining(max(sparsities))
    axes.set_xlim(low - _margin(low, high), high + _margin(low, high))
    shown = ticks(sparsities)
    axes.set_xticks([remaining(one) for one in shown], [f"{100 * one:.4g}" for one in shown])
    axes.set_xlabel("sparsity (% of prunable weights), by weights left")


def ticks(sparsities: Sequence[float]) -> list[float]:
    """Round sparsities in the range of those given, and of these if few are; none too close."""
    low, high = remaining(min(sparsities)), remaining(max(sparsities))
    margin, least = _margin(low, high), APART * max(high - low, 0.1)
    chosen: list[float] = []
    for one in (*ROUND, *(sparsities if len(sparsities) < 4 else ())):
        at = remaining(one)
        far = all(abs(at - remaining(other)) >= least for other in chosen)
        if low - margin <= at <= high + margin and far:
            chosen.append(one)
    return sorted(chosen)


def _margin(low: float, high: float) -> float:
    return max(MARGIN * (high - low), 0.0 if high - low > 1 else 0.3)
