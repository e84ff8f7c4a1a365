"""Which of the processes that torchrun started this one is."""

import os
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One of `size` processes, counted from 0 over all machines and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0


def place() -> Place:
    """As the environment tells it; without torchrun this process is alone."""
    values = [os.environ.get(name, "") for name in VARIABLES]
    if not all(value.isdecimal() for value in values) or "MASTER_ADDR" not in os.environ:
        return Place()
    rank, size, local_rank = map(int, values)
    return Place(rank=rank, size=size, local_rank=local_rank)
