"""Which weights `--exclude` leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from snnprune.errors import InputError
from snnprune.notation import layer_name


def excluded(names: Mapping[str, Sequence[str]], patterns: Iterable[str]) -> tuple[str, ...]:
    """The keys of `names` of which one name fits one of `patterns`.

    `names` holds all names of each prunable weight by its key; a pattern may leave out the
    `.weight` at the end.

    Raises:
        InputError: a pattern fits none, or together they fit all.
    """
    found = set[str]()
    for pattern in patterns:
        fitting = {key for key, known in names.items() if fits(known, pattern)}
        if not fitting:
            some = ", ".join(list(names)[:5])
            raise InputError(
                f"{pattern!r} fits no prunable weight", field="--exclude", hint=f"there are {some}"
            )
        found |= fitting
    if found and len(found) == len(names):
        raise InputError("leaves nothing to prune", field="--exclude")
    return tuple(key for key in names if key in found)


def fits(names: Sequence[str], pattern: str) -> bool:
    """Whether one of a weight's names fits a pattern, with or without its `.weight`."""
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(layer_name(name), pattern) for name in names
    )
