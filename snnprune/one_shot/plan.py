"""How a network is pruned at once."""

from dataclasses import dataclass


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
