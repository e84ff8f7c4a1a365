"""What a command is asked for: options whose fields say themselves how a command line gives them.

Importing this and the options of a checkpoint imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """What options derive from; a field that is annotated by typer's Option or Argument is a flag.

    All others keep their default until the command sets them.
    """

    def check(self) -> None:
        """Refuse what is wrong, before the command runs and imports torch."""


@dataclass(frozen=True, kw_only=True)
class ReadAs:
    """Annotates a field that a command line gives as something else, such as texts for a table."""

    given: Any
    """The type that typer reads; nothing given leaves the field's default."""
    read: Callable[[Any], Any]
    """From what was given to the field's value; called once all options have been checked."""
