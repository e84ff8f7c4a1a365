"""What changed between two tensors of one shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from snnprune.agreement.counts import summed
from snnprune.quantities import Natural


@dataclass(frozen=True, kw_only=True)
class Change:
    """Counts and sums over the values of one tensor, or of several."""

    values: Natural = 0
    changed: Natural = 0
    zeros_first: Natural = 0
    zeros_other: Natural = 0
    kept_by_both: Natural = 0
    """Values that are 0 in neither."""
    kept_by_either: Natural = 0
    squared_change: float = 0.0
    """Sum of |b - a|^2."""
    squared_norm: float = 0.0
    """Sum of |a|^2."""

    @property
    def relative(self) -> float | None:
        """||b - a|| / ||a||; None where that is no finite number."""
        if not self.squared_change:
            return 0.0
        ratio = self.squared_change / self.squared_norm if self.squared_norm else float("inf")
        return ratio**0.5 if ratio < float("inf") else None

    @property
    def overlap(self) -> float:
        """Jaccard index of what is kept: kept by both / kept by either; 1 where nothing is."""
        return self.kept_by_both / self.kept_by_either if self.kept_by_either else 1.0


def change(first: Tensor, other: Tensor) -> Change:
    """From `first` to `other`, in float64; two NaN count as the same.

    Their types may differ: values are compared as the wider type holds them.
    """
    same = (first == other) | ((first != first) & (other != other))
    kept, still = first != 0, other != 0
    wide = torch.complex128 if first.is_complex() or other.is_complex() else torch.float64
    before = first.to(wide)
    return Change(
        values=first.numel(),
        changed=int((~same).sum()),
        zeros_first=int((~kept).sum()),
        zeros_other=int((~still).sum()),
        kept_by_both=int((kept & still).sum()),
        kept_by_either=int((kept | still).sum()),
        squared_change=_squared(other.to(wide) - before),
        squared_norm=_squared(before),
    )


def together(changes: Iterable[Change]) -> Change:
    """Those of several tensors as one."""
    return reduce(summed, changes, Change())


def _squared(values: Tensor) -> float:
    return float(values.abs().square().sum())
