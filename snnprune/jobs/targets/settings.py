"""Settings of a project, said once: `snnprune.toml`, or `[tool.snnprune]` of a pyproject.toml.

The nearest one in or above the working directory holds, as of ruff; a flag comes before it. Paths
in it are relative to it. Code that it names runs with the user's consent only: whoever clones a
repository has not written what lies in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.data import FORMS
from snnprune.errors import InputError, did_you_mean
from snnprune.files.reading import open_for_reading, require_regular_file
from snnprune.plugins.names import REPEAT
from snnprune.plugins.user_code import is_reference

if TYPE_CHECKING:
    from snnprune.jobs.consent import NamedCode

OWN_FILE, SHARED_FILE = "snnprune.toml", "pyproject.toml"
TABLE = ("tool", "snnprune")
NAME = b"snnprune"
MOST_BYTES = 2**20  # a pyproject.toml has thousands
WITHOUT = "--no-config goes without it"
TRUST = "--trust-config"

Given = str | int | Path | list[str]
"""What a flag would have got from a command line."""


class _WrongTypeError(Exception):
    """A value is not what its setting takes; says what that is."""


def _read_text(value: Any, _: Path) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongTypeError("text")
    return value


def _read_count(value: Any, _: Path) -> int:
    if type(value) is not int or value < 1:
        raise _WrongTypeError("a whole number of at least 1")
    return value


def _read_texts(value: Any, _: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _WrongTypeError('a list of texts, as ["conv1*"]')
    return list(value)


def _read_path(value: Any, folder: Path) -> Path:
    return Path(_place(_read_text(value, folder), folder))


def _read_reference(value: Any, folder: Path) -> str:
    """A name, or `file.py:function` with the file as it is found from here."""
    text = _read_text(value, folder)
    place, _, name = text.rpartition(":")
    return f"{_place(place, folder)}:{name}" if place.endswith(".py") else text


def _read_data(value: Any, folder: Path) -> str:
    """The same of data: after `imagefolder:` and `tensors:` comes a path too."""
    text = _read_text(value, folder)
    form, colon, place = text.partition(":")
    if form in FORMS and place:
        return f"{form}{colon}{_place(place, folder)}"
    return _read_reference(text, folder)


def _read_links(value: Any, _: Path) -> list[str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _WrongTypeError('a table, as {"conv1.weight" = "lif1"}')
    return [f"{weight}={neuron}" for weight, neuron in value.items()]


def _read_arguments(value: Any, folder: Path) -> list[str]:
    if not isinstance(value, dict):
        raise _WrongTypeError("a table, as {width = 32}")
    return [f"{name}={_format_argument(one, folder)}" for name, one in value.items()]


def _format_argument(value: Any, folder: Path) -> str:
    """As `--model-arg` reads it: JSON is YAML, and a name of an object stands unquoted."""
    import json

    from snnprune.plugins.names import Reference, parse_typed

    if isinstance(value, str):
        text = _read_reference(value, folder) if value else value
        return text if isinstance(parse_typed(text), Reference) else json.dumps(value)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise _WrongTypeError("a table of numbers, texts, truth values and lists") from None


SETTINGS: Mapping[str, Callable[[Any, Path], Given]] = {
    "model": _read_reference,
    "model-arg": _read_arguments,
    "forward": _read_reference,
    "readout": _read_reference,
    "data": _read_data,
    "test-data": _read_data,
    "eval-data": _read_data,
    "data-root": _read_path,
    "device": _read_text,
    "batch-size": _read_count,
    "state-dict": _read_text,
    "exclude": _read_texts,
    "link": _read_links,
}
"""What the network and the data are, by the name of its flag: from the file's value to the flag's.

What is done to them, where results go and what may be fetched stay on the command line.
"""
OF_MODEL = ("model-arg", "forward", "readout", "link", "exclude", "state-dict")
"""What is said of the model that the file names, and of no other."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a file."""

    path: Path
    values: Mapping[str, Given]

    def select(self, keys: Collection[str], typed: Collection[str]) -> Config:
        """Those of `keys` that a command has flags for; what was `typed` comes before them."""
        gone = {*typed, *(OF_MODEL if "model" in typed and "model" in self.values else ())}
        kept = {key: one for key, one in self.values.items() if key in keys and key not in gone}
        return Config(path=self.path, values=kept)

    @property
    def note(self) -> str:
        """Which settings, and of which file."""
        return f"{', '.join(self.values)} of {self.path}"

    def describe(self) -> dict[str, Any]:
        """For a report."""
        return {"path": str(self.path), "settings": list(self.values)}

    def require_consent(self, *, trusted: bool) -> None:
        """Refuse code that it names unless the user has agreed to it, once; none is imported.

        Raises:
            InputError: there is some, or it is of Python's standard library.
        """
        if not any(map(is_reference, _iter_texts(self.values))):
            return
        from snnprune.jobs.consent import format_as_flag, read_record, remember, require_consent

        code, known = self._find_code(), read_record(self.path, around=0)
        places = {named.reference: _locate(named.reference) for named in code}
        require_consent(
            code,
            file=self.path,
            trusted=trusted,
            record={here: known[place] for here, place in places.items() if place in known},
            typed_as=format_as_flag,
            offer=TRUST,
        )
        if trusted and code:
            remember(self.path, (replace(one, reference=places[one.reference]) for one in code))

    def _find_code(self) -> tuple[NamedCode, ...]:
        from snnprune.jobs.consent import NamedCode
        from snnprune.plugins.names import Reference, parse_typed

        return tuple(
            NamedCode(path=(key,), reference=text, alone=key != "model-arg")
            for key, value in self.values.items()
            for text in _iter_texts({key: value})
            if is_reference(text)
            and not _is_built_in(key, text)
            and (key != "model-arg" or isinstance(parse_typed(text), Reference))
        )


def find_config(folder: Path) -> Path | None:
    """The nearest file with settings in `folder` or above it; `snnprune.toml` comes first in one.

    Raises:
        InputError: a pyproject.toml on the way cannot be read.
    """
    for around in (folder, *folder.parents):
        own, shared = around / OWN_FILE, around / SHARED_FILE
        if _is_file(own):
            return own
        if not _is_file(shared) or NAME not in _read_bytes(shared):
            continue  # most have no such table, and need not be understood
        if _find_table(_parse(shared)) is not None:
            return shared
    return None


def load_config(path: Path | None, *, search: bool = True) -> Config | None:
    """The settings of the file `path`, or of the nearest one; None where there is none.

    Raises:
        InputError: it cannot be read, is no TOML, is somebody else's, or has a key that no flag
            has or a value that its flag does not take.
    """
    found = path
    if path is None:
        found = _find_here() if search else None
        if found is None:
            return None
        _require_own(found)
    assert found is not None
    tree = _parse(found)
    table = _find_table(tree) if found.name == SHARED_FILE else tree
    if table is None:
        raise InputError("has no table [tool.snnprune]", file=found)
    return Config(path=found, values=_read_values(table, found))


def _find_here() -> Path | None:
    try:
        here = Path.cwd()
    except OSError:  # it is gone
        return None
    return find_config(here)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # of a folder that may not be looked into
        return False


def _require_own(path: Path) -> None:
    """Refuse what somebody else put above the working directory, as into /tmp."""
    ours = getattr(os, "getuid", lambda: 0)()
    if ours and _read_owner(path) not in (ours, 0):
        raise InputError(
            "belongs to another user", file=path, hint=f"--config {path} takes it, {WITHOUT}"
        )


def _read_owner(path: Path) -> int:
    return path.stat().st_uid


def _read_values(table: Mapping[str, Any], path: Path) -> dict[str, Given]:
    values: dict[str, Given] = {}
    for key, value in table.items():
        if key not in SETTINGS:
            raise InputError(
                "unknown setting", file=path, field=key, hint=did_you_mean(key, SETTINGS)
            )
        try:
            values[key] = SETTINGS[key](value, path.parent)
        except _WrongTypeError as wrong:
            raise InputError(f"takes {wrong}, not {value!r}", file=path, field=key) from None
    return values


def _find_table(tree: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Any = tree
    for name in TABLE:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _parse(path: Path) -> dict[str, Any]:
    import tomllib  # where there is a file alone: it takes milliseconds

    try:
        return tomllib.loads(_read_bytes(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is no TOML: {error}", file=path, hint=WITHOUT) from None


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_file() and not path.stat().st_size:
            return b""
        require_regular_file(path)
        with open_for_reading(path) as file:
            data = file.read(MOST_BYTES + 1)
    except InputError as error:
        error.hint = f"{error.hint}; {WITHOUT}" if error.hint else WITHOUT
        raise
    if len(data) > MOST_BYTES:
        raise InputError(f"more than {MOST_BYTES // 1024} KiB", file=path, hint=WITHOUT)
    return data


def _place(place: str, folder: Path) -> str:
    """A path of the file as it is found from the working directory."""
    return os.path.relpath(folder / place) if not Path(place).is_absolute() else place


def _iter_texts(values: Mapping[str, Given]) -> Iterator[str]:
    """All text; of `name=value` the value."""
    for key, value in values.items():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and key == "model-arg":
            yield from (text.partition("=")[2] for text in value)


def _is_built_in(key: str, text: str) -> bool:
    """Whether it is `tensors:FILE` or `imagefolder:DIR` of data, or `repeat:T` of a way to run."""
    form = text.partition(":")[0]
    return form in FORMS if key.endswith("data") else key == "forward" and form == REPEAT


def _locate(reference: str) -> str:
    """A reference that means the same wherever one is."""
    place, _, name = reference.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else reference
