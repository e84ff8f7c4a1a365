"""Names that users write, and what they stand for: built in, from a plug-in, or in their own file.

A table holds `name -> (target, summary)` where the target is `module:function`, imported only when
it is used: help, recipes and errors list names without importing torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from snnprune.errors import error_class_for
from snnprune.errors.text import did_you_mean
from snnprune.plugins.user_code import is_reference, load_object, load_own


@dataclass(frozen=True, kw_only=True)
class RegistryRow:
    """One name: where its function is and what it does, in a line."""

    target: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The names of one kind of thing."""

    kind: str
    """What one of them is called in an error: `criterion`, `model`, ..."""
    group: str
    """The entry-point group through which installed packages add names."""
    rows: Mapping[str, RegistryRow]

    def names(self) -> tuple[str, ...]:
        """Every built-in and plugged-in name, in that order."""
        plugged = [point.name for point in entry_points(group=self.group)]
        return (*self.rows, *(name for name in plugged if name not in self.rows))

    def require(self, name: str, *, field: str) -> None:
        """Check a name without importing what it stands for.

        Raises:
            UsageError: nothing has this name, it is not of the form `file.py:function`, and
                `field` is a flag.
            InputError: likewise, in a file.
        """
        if name in self.rows or is_reference(name):
            return  # going through all installed packages takes a while
        if name not in self.names():
            raise error_class_for(field)(
                f"unknown {self.kind} {name!r}",
                field=field,
                hint=f"name the function too: {name}:FUNCTION"
                if name.endswith(".py")
                else did_you_mean(name, self.names()),
            )

    def load(self, name: str, *, field: str) -> Any:
        """The function that `name` stands for.

        Raises:
            UsageError: as `require`.
            InputError: as `require`, or the user's own code could not be imported or is not theirs.
        """
        self.require(name, field=field)
        target = self._find_target(name)
        return load_object(target, field=field) if target else load_own(name, field=field)

    def _find_target(self, name: str) -> str | None:
        """Where the function of a known name is; None for a reference."""
        if name in self.rows:
            return self.rows[name].target
        plugged = {point.name: point.value for point in entry_points(group=self.group)}
        return plugged.get(name)
