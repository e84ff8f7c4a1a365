"""From a command that takes flag dataclasses to one that typer can read."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """What the flag dataclasses derive from."""

    def check(self) -> None:
        """Refuse what is wrong, before the command runs and imports torch."""


def spread(command: F) -> F:
    """`command` with one parameter for each field of its parameters that are flag dataclasses.

    These have been checked when the command runs, in the order of its parameters.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Flags]] = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Flags)
    }
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    flags = {name: _flags(group) for name, group in groups.items()}

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        built = {
            name: kind(**{flag.name: values.pop(flag.name) for flag in flags[name]})
            for name, kind in groups.items()
        }
        for group in built.values():
            group.check()
        return command(**values, **built)

    # What typer reads: the command's own flags first, then the shared ones. mypy knows neither
    # that a function may be given a signature nor that `gathered` stands in for `command`.
    parameters = [*own, *(flag for shared in flags.values() for flag in shared)]
    gathered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gathered  # type: ignore[return-value]


def _flags(group: type[Flags]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
