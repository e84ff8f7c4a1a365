"""Refusing code that only a file names."""

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from snnprune.data import FORMS, is_built_in
from snnprune.errors import InputError, OutputError
from snnprune.files.reading import hash_file
from snnprune.files.writing import write_json
from snnprune.plugins.names import REPEAT
from snnprune.plugins.user_code import is_reference, list_places_here, require_not_standard
from snnprune.recipe.errors import cut_text
from snnprune.recipe.loading import parse_override

TEXT = (("model", "args"), ("output", "folder"))
"""Settings that are text whatever they look like."""
SHOWN = 4  # names that a message lists

KeyPath = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NamedCode:
    """Code that a setting names."""

    path: KeyPath
    reference: str
    alone: bool = True
    """Whether it is the whole setting, not one of a list."""

    @property
    def field(self) -> str:
        """The setting as `a.b`."""
        return ".".join(self.path)


def find_code(settings: BaseModel, *, within: str = "") -> tuple[NamedCode, ...]:
    """All code that the settings of a recipe, or of its section `within`, name; none is imported.

    Any text of the form `place:name` counts that is not known to be something else, so that a new
    setting is not forgotten here.
    """
    around = (within,) if within else ()
    leaves = _iter_leaves(settings.model_dump(), around)
    return tuple(named for path, text, alone in leaves for named in _iter_code(path, text, alone))


def find_typed_code(overrides: Iterable[str], code: Iterable[NamedCode]) -> frozenset[str]:
    """The references of `code` whose settings `a.b=value` of the command line have set."""
    paths = [parse_override(text).path for text in overrides]
    return frozenset(
        named.reference for named in code if any(named.path[: len(path)] == path for path in paths)
    )


def format_code(code: Sequence[NamedCode]) -> str:
    """`names code: a.b own.py:build, ...`, for people."""
    names = [f"{named.field} {cut_text(named.reference)}" for named in code[:SHOWN]]
    more = [f"and {len(code) - SHOWN} more"] if len(code) > SHOWN else []
    return f"names code: {', '.join([*names, *more])}"


def _iter_leaves(
    value: Any, path: KeyPath, *, alone: bool = True
) -> Iterator[tuple[KeyPath, str, bool]]:
    """The texts in a tree of settings, each with its place; those of a list have the list's."""
    match value:
        case str() if path not in TEXT:
            yield path, value, alone
        case Mapping() if path not in TEXT:
            for name, inner in value.items():
                yield from _iter_leaves(inner, (*path, name))
        case list() | tuple():
            for inner in value:
                yield from _iter_leaves(inner, path, alone=False)


def _iter_code(path: KeyPath, text: str, alone: bool) -> Iterator[NamedCode]:
    parts = text.split("+") if path[-1] == "repair" else [text]  # several, as obs+tune
    for part in parts:
        if is_reference(part) and not _is_built_in(path, part):
            yield NamedCode(path=path, reference=part, alone=alone and len(parts) == 1)


def _is_built_in(path: KeyPath, text: str) -> bool:
    """Whether it is `tensors:FILE` or `nmnist:frames=8` of data, or `repeat:T` of a way to run."""
    form = text.partition(":")[0]
    if path[0] == "data" or path == ("grid", "data"):
        return form in FORMS or is_built_in(text)
    return path == ("model", "forward") and form == REPEAT


Record = Mapping[str, str]
"""The SHA-256 of each reference's file."""
AROUND = 2  # folders around one run: of its seeds, and of its grid


def remember(folder: Path, code: Iterable[NamedCode]) -> bool:
    """Note that `code` is run in `folder` with the user's consent; whether that could be done.

    `folder` may be a file of settings too, which names the code.
    """
    hashes = {named.reference: hash_code(named.reference) for named in code}
    known = {reference: found for reference, found in hashes.items() if found is not None}
    if not known:
        return not hashes
    try:
        path = _note_path(folder.resolve())
        _make_folder(path.parent)
        write_json(path, {"folder": str(folder.resolve()), "code": known})
    except (OSError, OutputError, RuntimeError):  # RuntimeError: there is no home folder
        return False
    return True


def read_record(folder: Path, *, around: int = AROUND) -> Record:
    """What was noted for the run in `folder`, or for the seeds or the grid that it is part of.

    `around` is how many folders above it count.
    """
    with contextlib.suppress(OSError, RuntimeError):
        here = folder.resolve()
        for place in (here, *here.parents[:around]):
            if found := _read_notes(_note_path(place)):
                return found
    return {}


def hash_code(reference: str) -> str | None:
    """The SHA-256 of the file that a reference names, unimported; None where it is not seen."""
    path = _find_file(reference.rpartition(":")[0])
    if path is None:
        return None
    try:
        return hash_file(path) if path.is_file() else None
    except OSError:
        return None


def _make_folder(folder: Path) -> None:
    """Make the folder of notes, in which nobody else can leave any."""
    ours = folder.parent
    ours.parent.mkdir(parents=True, exist_ok=True)
    for each in (ours, folder):
        each.mkdir(mode=0o700, exist_ok=True)


def _find_file(place: str) -> Path | None:
    """Where the code lies: among what is installed, and then in the current folder."""
    if place.endswith(".py"):
        return Path(place)
    if place.partition(".")[0] == "__main__":  # whatever was started, and no module of a name
        return None
    return _find_installed(*place.split(".")) or next(
        filter(Path.is_file, list_places_here(place)), None
    )


def _find_installed(package: str, *inside: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)  # imports nothing for a name without dots
    except ValueError:
        return None
    for name in inside:
        folders = spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(name, list(folders)) if folders else None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _note_path(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    return _state_folder() / "runs" / f"{name}.json"


def _state_folder() -> Path:
    """After the XDG base directory specification, by which a relative path does not count."""
    said = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (said if said.is_absolute() else Path.home() / ".local" / "state") / "snnprune"


def _read_notes(path: Path) -> Record:
    try:
        code = json.loads(path.read_text(encoding="utf-8"))["code"]
        return {str(reference): str(found) for reference, found in code.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


Typed = Callable[[NamedCode], str]
OFFER = "--trust-recipe"


def format_as_setting(named: NamedCode) -> str:
    """How the code is named on a command line that runs a recipe."""
    return f"--set {shlex.quote(f'{named.field}={named.reference}')}"


def format_as_flag(named: NamedCode) -> str:
    """How it is named on that of `prune`."""
    return f"--{named.path[-1]} {shlex.quote(named.reference)}"


def require_consent(
    code: Sequence[NamedCode],
    *,
    file: object,
    typed: Collection[str] = (),
    trusted: bool = False,
    record: Record = MappingProxyType({}),
    typed_as: Typed = format_as_setting,
    offer: str = OFFER,
) -> None:
    """Refuse `code` of the recipe `file` that the user has not agreed to; none is imported.

    Args:
        code: what the recipe names.
        file: what errors call the recipe.
        typed: the references that stand on the command line too.
        trusted: whether `--trust-recipe` was given.
        record: what this user's run in the same folder ran.
        typed_as: how one is typed instead.
        offer: the flag that was not given.

    Raises:
        InputError: there is some, or it is of Python's standard library.
    """
    for named in code:
        require_not_standard(named.reference, field=named.field, file=file)
    asked = [named for named in code if not trusted and named.reference not in typed]
    asked = [named for named in asked if not _has_run_before(named, record)]
    if asked:
        raise InputError(
            format_code(asked) + _format_since(asked, record),
            file=file,
            field=asked[0].field,
            hint=_format_hint(asked, typed_as, offer),
        )


def _has_run_before(named: NamedCode, record: Mapping[str, str]) -> bool:
    before = record.get(named.reference)
    return before is not None and before == hash_code(named.reference)


def _format_since(asked: Sequence[NamedCode], record: Record) -> str:
    changed = any(named.reference in record for named in asked)
    return ", changed since the run began" if changed else ""


def _format_hint(asked: Sequence[NamedCode], typed_as: Typed, offer: str) -> str:
    one = len(asked) == 1 and asked[0].alone
    instead = f", or name it yourself: {typed_as(asked[0])}" if one else ""
    return f"if you trust it, run it with {offer}{instead}"
