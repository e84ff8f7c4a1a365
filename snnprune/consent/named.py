"""Which code a recipe names, and which of it stands on the command line too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from snnprune.data import FORMS
from snnprune.forwards import REPEAT
from snnprune.recipe import parse_override
from snnprune.recipe.errors import cut
from snnprune.user_code import is_reference

TEXT = (("model", "args"), ("output", "folder"))
"""Settings that are text whatever they look like."""
SHOWN = 4  # names that a message lists

Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Named:
    """Code that a setting names."""

    path: Path
    reference: str
    alone: bool = True
    """Whether it is the whole setting, not one of a list."""

    @property
    def field(self) -> str:
        """The setting as `a.b`."""
        return ".".join(self.path)


def code_in(settings: BaseModel, *, within: str = "") -> tuple[Named, ...]:
    """All code that the settings of a recipe, or of its section `within`, name; none is imported.

    Any text of the form `place:name` counts that is not known to be something else, so that a new
    setting is not forgotten here.
    """
    around = (within,) if within else ()
    leaves = _leaves(settings.model_dump(), around)
    return tuple(named for path, text, alone in leaves for named in _named(path, text, alone))


def typed_by(overrides: Iterable[str], code: Iterable[Named]) -> frozenset[str]:
    """The references of `code` whose settings `a.b=value` of the command line have set."""
    paths = [parse_override(text).path for text in overrides]
    return frozenset(
        named.reference for named in code if any(named.path[: len(path)] == path for path in paths)
    )


def told(code: Sequence[Named]) -> str:
    """`names code: a.b own.py:build, ...`, for people."""
    names = [f"{named.field} {cut(named.reference)}" for named in code[:SHOWN]]
    more = [f"and {len(code) - SHOWN} more"] if len(code) > SHOWN else []
    return f"names code: {', '.join([*names, *more])}"


def _leaves(value: Any, path: Path, *, alone: bool = True) -> Iterator[tuple[Path, str, bool]]:
    """The texts in a tree of settings, each with its place; those of a list have the list's."""
    match value:
        case str() if path not in TEXT:
            yield path, value, alone
        case Mapping() if path not in TEXT:
            for name, inner in value.items():
                yield from _leaves(inner, (*path, name))
        case list() | tuple():
            for inner in value:
                yield from _leaves(inner, path, alone=False)


def _named(path: Path, text: str, alone: bool) -> Iterator[Named]:
    parts = text.split("+") if path[-1] == "repair" else [text]  # several, as obs+tune
    for part in parts:
        if is_reference(part) and not _is_built_in(path, part):
            yield Named(path=path, reference=part, alone=alone and len(parts) == 1)


def _is_built_in(path: Path, text: str) -> bool:
    """Whether it is `tensors:FILE` or `imagefolder:DIR` of data, or `repeat:T` of a way to run."""
    form = text.partition(":")[0]
    if path[0] == "data" or path == ("grid", "data"):
        return form in FORMS
    return path == ("model", "forward") and form == REPEAT
