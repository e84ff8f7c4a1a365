"""Names that users write, and what they stand for: built in, from a plug-in, or in their own file.

A `Registry` holds `name -> (target, summary)` where the target is `module:function`, imported only
when it is used: help, recipes and errors list names without importing torch. The ways to run a
batch, `FORWARDS`, have no targets.

A `Reference` is text that somebody typed where an object may be meant, as an argument of a model:
`package.module:Class`, `file.py:name`. Files keep it so that they tell what it was; read back it is
`StoredReference` and stands for nothing, as no file chooses what is imported.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from snnprune.errors import InputError, did_you_mean, error_class_for
from snnprune.plugins.user_code import is_importable, is_reference, load_object, load_own


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


WHOLE, REPEAT, STEPS = "whole", "repeat", "steps"
FORWARDS = {
    WHOLE: "the module is called once, with x",
    f"{REPEAT}:T": "with the same x T times, a call for each time step",
    STEPS: "with x[0], x[1], ... of x (T, N, ...), a call for each time step",
}


def require_forward(name: str | None, *, field: str = "--forward") -> None:
    """Refuse an unknown name before any work is done; nothing of the user's is imported.

    Raises:
        UsageError: it is none of `FORWARDS` and no reference to a function, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if name is None or name in (WHOLE, STEPS) or parse_repeats(name, field=field):
        return
    if not is_reference(name):
        raise error_class_for(field)(
            f"unknown way to run {name!r}",
            field=field,
            hint=f"name the function too: {name}:FUNCTION"
            if name.endswith(".py")
            else did_you_mean(name, [*FORWARDS, "file.py:function"]),
        )


def parse_repeats(name: str, *, field: str = "--forward") -> int | None:
    """T of `repeat:T`; None for another name.

    Raises:
        UsageError: T is no number of time steps, and `field` is a flag.
        InputError: likewise, in a file.
    """
    kind, _, count = name.partition(":")
    if kind != REPEAT:
        return None
    if not (count.isdecimal() and count.isascii()) or int(count) < 1:
        raise error_class_for(field)(
            f"{name!r} has no number of time steps", field=field, hint="write it as repeat:4"
        )
    return int(count)


def is_own_function(name: str | None) -> bool:
    """Whether a function of the user's is named, which may take batches of any kind."""
    built_in = name is None or name in (WHOLE, STEPS) or name.partition(":")[0] == REPEAT
    return not built_in


READOUTS = ("auto", "sum", "mean", "last")


def require_readout(name: str, *, field: str = "--readout") -> None:
    """Refuse an unknown readout before any work is done.

    Raises:
        UsageError: it is not known, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if name not in READOUTS:
        raise error_class_for(field)(
            f"unknown readout {name!r}", field=field, hint=did_you_mean(name, READOUTS)
        )


KEPT = "snnprune.reference"
"""In files, the one key of the section that stands for a reference."""


class Reference(str):
    """Text of the command line that stands for the object that it names."""

    __slots__ = ()


class StoredReference(str):
    """What was a `Reference`, says a file."""

    __slots__ = ()


def parse_typed(text: str) -> str:
    """Unquoted text of a command line: a `Reference` where it names an object.

    It does where it is `module:name` or `FILE.py:name`, the module and the name dotted or not; but
    `a:b` is text unless there is a module `a`.
    """
    if not looks_like_reference(text):
        return text
    place = text.rpartition(":")[0]
    return Reference(text) if "." in place or is_importable(place) else text


def looks_like_reference(text: str) -> bool:
    """Whether `text` has the form of a reference."""
    place, _, name = text.rpartition(":")
    is_file = place.endswith(".py") and "://" not in place
    return _is_dotted(name) and (is_file or _is_dotted(place))


def encode_references(value: Any) -> Any:
    """`value` for a file, its references as sections that are nobody's text."""
    is_one = isinstance(value, Reference | StoredReference)
    return {KEPT: str(value)} if is_one else _map_inside(value, encode_references)


def decode_references(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a file has them that `encode_references` wrote."""
    return {name: _decode_value(value) for name, value in args.items()}


def decode_section(section: dict[str, Any]) -> Any:
    """A section of a file, what is in it read already; `StoredReference` where it stands for
    one.
    """
    text = section.get(KEPT)
    is_one = len(section) == 1 and isinstance(text, str) and looks_like_reference(text)
    return StoredReference(text) if is_one else section


def load_objects(args: Mapping[str, Any], *, flag: str) -> dict[str, Any]:
    """`args` with the objects that references in them stand for; this runs the user's code.

    `flag` is what comes before an argument's name on the command line.

    Raises:
        InputError: there is no such object, or a file alone says that there was one.
    """
    try:
        return {name: _load_value(value, flag + name) for name, value in args.items()}
    except RecursionError as error:
        raise InputError("nested too deeply", field=flag.strip()) from error


def iter_references(args: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted name of each argument that is a reference, and its text."""
    for name, value in args.items():
        if isinstance(value, Reference):
            yield prefix + name, str(value)
        elif isinstance(value, Mapping):
            yield from iter_references(value, f"{prefix}{name}.")


@contextlib.contextmanager
def explain_text_argument(args: Mapping[str, Any], *, flag: str) -> Iterator[None]:
    """Faults in the block tell of an argument that is text, where it may be meant for an object."""
    try:
        yield
    except InputError as error:
        meant = ((k, v) for k, v in args.items() if type(v) is str and looks_like_reference(v))
        for name, value in meant:
            flagged = _format_argument(flag + name, value)
            told = f"{name} is text; {flagged} names an object, if it is there"
            error.hint = f"{told}; {error.hint}" if error.hint else told
        raise


def flag_of(field: str) -> str:
    """What comes before an argument's name on the command line, for a model that `field` names."""
    return "--model-arg " if field.startswith("-") else "--set model.args."


def _decode_value(value: Any) -> Any:
    value = _map_inside(value, _decode_value)
    return decode_section(value) if isinstance(value, dict) else value


def _load_value(value: Any, field: str) -> Any:
    match value:
        case StoredReference():
            raise InputError(
                f"the file says {value}, and no file names code that runs",
                field=field,
                hint=f"if it is yours, give {_format_argument(field, value)}",
            )
        case Reference():
            return _load_reference(str(value), field)
        case dict():
            return {name: _load_value(inner, f"{field}.{name}") for name, inner in value.items()}
        case list():
            return [_load_value(inner, field) for inner in value]
    return value


def _load_reference(text: str, field: str) -> Any:
    try:
        return load_object(text, field=field)
    except InputError as error:
        quoted = f"""for the text itself, quote it: {_format_argument(field, f'"{text}"')}"""
        error.hint = f"{error.hint}; {quoted}" if error.hint else quoted
        raise


def _format_argument(field: str, value: str) -> str:
    """As it is typed in a shell."""
    flag, _, name = field.partition(" ")
    return f"{flag} {shlex.quote(f'{name}={value}')}"


def _map_inside(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with what is directly in it changed."""
    match value:
        case dict():
            return {name: change(inner) for name, inner in value.items()}
        case list():
            return [change(inner) for inner in value]
    return value


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
