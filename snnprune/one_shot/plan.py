"""How a network is pruned at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnprune.allocation import load_allocation
from snnprune.criteria import Criterion, load_criterion
from snnprune.repair import load_repairs

if TYPE_CHECKING:
    from snnprune.allocation.candidates import Allocation
    from snnprune.repair.pruned import Repair


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Names of what does it."""

    criterion: str
    allocation: str | None = None
    """None takes the one that fits the scores."""
    repair: str = "none"
    """One, or several in turn as `obs+tune`."""
    steps: int = 1
    """From 2 on the network is ranked and repaired again on the way."""

    def path(self, sparsity: float, *, first: float = 0.0) -> list[float]:
        """The sparsity after each step, from what is pruned at `first`: the same share each time.

        What is left shrinks by the same factor at each step, as in iterative pruning.
        """
        kept, left = 1 - first, 1 - sparsity
        steps = range(1, self.steps)
        return [*(1 - kept * (left / kept) ** (n / self.steps) for n in steps), sparsity]

    def load(self) -> PrunePlan:
        """What the names stand for, each loaded once.

        Raises:
            InputError: criterion, allocation or repair cannot be had.
        """
        return PrunePlan(
            names=self,
            criterion=load_criterion(self.criterion),
            allocation=None if self.allocation is None else load_allocation(self.allocation),
            repairs=load_repairs(self.repair),
        )


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What a `Plan` names, loaded."""

    names: Plan
    criterion: Criterion
    allocation: Allocation | None
    """None takes the one that fits the scores."""
    repairs: tuple[Repair, ...]

    def load(self) -> PrunePlan:
        """The same: it is loaded already."""
        return self
