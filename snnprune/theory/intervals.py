"""How sure a share is that was counted."""

from __future__ import annotations

import math
from collections.abc import Callable


def exact_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a binomial's chance: at least as sure as it says."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solved(lambda p: 1 - _below(hits - 1, trials, p) - tail)
    high = 1.0 if hits == trials else _solved(lambda p: tail - _below(hits, trials, p))
    return low, high


def _below(hits: int, trials: int, chance: float) -> float:
    """P[X <= hits]."""
    logs = (_log_binomial(trials, k, chance) for k in range(hits + 1))
    return min(1.0, math.fsum(math.exp(log) for log in logs))


def _solved(rising: Callable[[float], float]) -> float:
    """Where a rising function of (0, 1) is 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _log_binomial(trials: int, hits: int, chance: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return ways + hits * math.log(chance) + (trials - hits) * math.log1p(-chance)
