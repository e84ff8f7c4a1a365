"""Settings from the command line, `--set a.b=value`, laid over those of the file."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from snnprune.errors import UsageError
from snnprune.recipe.document import Scalar, parse_text
from snnprune.recipe.errors import Refused, dotted
from snnprune.recipe.scalars import plain_value
from snnprune.references import typed

MODEL_ARG, ARGUMENTS = "--model-arg", ("model", "args")


@dataclass(frozen=True, kw_only=True)
class Override:
    """One `--set`."""

    path: tuple[str, ...]
    value: Any

    def concerns(self, path: Sequence[str | int]) -> bool:
        """Whether `path` lies in what this sets, or is a section around it."""
        common = min(len(path), len(self.path))
        return tuple(path[:common]) == self.path[:common]


def parse_settings(texts: Iterable[str], *, option: str) -> dict[str, Any]:
    """The tree that `a.b=value` texts spell, given as the repeatable flag `option`.

    Raises:
        UsageError: as `parse_override`.
    """
    return overridden({}, [parse_override(text, option=option) for text in texts])


def parse_override(text: str, *, option: str = "--set") -> Override:
    """Read `a.b=value`, the value as YAML; an argument of a model may name an object.

    Raises:
        UsageError: it has no name or no `=`, or its value is not YAML.
    """
    name, equals, value = text.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise UsageError(f"{text!r} is not of the form a.b=value", field=option)
    try:
        plain = _named_value if option == MODEL_ARG or path[:2] == ARGUMENTS else plain_value
        return Override(path=path, value=parse_text(value, plain).value)
    except Refused as refused:
        problem = refused.problem
        raise UsageError(problem.message, field=flag(path, option), hint=problem.hint) from None


def overridden(tree: dict[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of `tree` with each override in its place, sections made where they are missing.

    Raises:
        UsageError: an override goes through a setting that is no section.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _assign(tree, override)
    return tree


def flag(path: Sequence[str | int], option: str = "--set") -> str:
    """What errors call the override of `path`."""
    return f"{option} {dotted(path)}"


def _named_value(text: str) -> Scalar:
    """What unquoted text means where it may name an object."""
    value = plain_value(text)
    return typed(value) if isinstance(value, str) else value


def _assign(section: dict[str, Any], override: Override) -> None:
    *around, name = override.path
    for depth, outer in enumerate(around, start=1):
        if section.get(outer) is None:
            section[outer] = {}
        section = section[outer]
        if not isinstance(section, dict):
            raise UsageError(
                f"{dotted(around[:depth])} is a value, not a section", field=flag(override.path)
            )
    section[name] = override.value
