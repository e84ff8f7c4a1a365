"""How this process was started, and which of those that torchrun started it is."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import PurePath

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


def command_line() -> str | None:
    """What was typed, quoted for a shell; None where something else than the command runs us."""
    program = PurePath(sys.argv[0])
    ours = program.stem == "snnprune" or program.parts[-2:] == ("snnprune", "__main__.py")
    return shlex.join(["snnprune", *sys.argv[1:]]) if ours else None
