"""What one pass over data finds out about a network, and how far two checkpoints differ.

Here are the quantities that it is told in, numbers and the range that they are in; the schema of
the reports has it from here. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from annotated_types import Ge, Le

if TYPE_CHECKING:
    from snnprune.measure.workload import LayerWork

Natural = Annotated[int, Ge(0)]
"""A count."""
Share = Annotated[float, Ge(0), Le(1)]
"""A part of a whole, a rate or a chance."""
InputValues = Literal["binary", "counts", "analog"]
"""0 or 1; whole numbers from 0 up; anything else."""
ENERGY_MAC, ENERGY_AC = 4.6, 0.9
"""pJ of an operation on 32-bit floats at 45 nm (Horowitz 2014, Computing's energy problem)"""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What an operation takes, in pJ.

    Of arithmetic alone: reading weights from memory may well take more.
    """

    mac: float = ENERGY_MAC
    ac: float = ENERGY_AC

    def of(self, work: LayerWork) -> float:
        """Of all effective operations, in pJ."""
        return work.macs * self.mac + work.acs * self.ac


T = TypeVar("T")


def add_counts(one: T | None, another: T) -> T:
    """Two records of counts as one."""
    if one is None:
        return another
    return type(another)(
        **{name: value + getattr(one, name) for name, value in vars(another).items()}
    )


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


def sum_changes(changes: Iterable[Change]) -> Change:
    """Those of several tensors as one."""
    return reduce(add_counts, changes, Change())
