"""Two processes in one: each is run by itself, with what the other has told."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from snnprune.distributed.ranks import Ranks

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ToldRanks(Ranks):
    """A rank that finds what the others told in `told`, by rank."""

    told: dict[int, Any] = field(default_factory=dict)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, as far as they were told."""
        self.told[self.rank] = deepcopy(value)
        return [deepcopy(self.told.get(rank, value)) for rank in range(self.size)]


def run_both(work: Callable[[Ranks], T]) -> tuple[T, T]:
    """What `work` gives in either of two processes."""
    told: dict[int, Any] = {}
    first, second = (ToldRanks(rank=rank, size=2, told=told) for rank in (0, 1))
    work(second)  # so that the first knows what it tells
    return work(first), work(second)
