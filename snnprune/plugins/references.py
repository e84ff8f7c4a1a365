"""Values that stand for objects: `package.module:Class`, `file.py:name`, on a command line alone.

A `Reference` is text that somebody typed where an object may be meant. Files keep it so that they
tell what it was; read back it is `StoredReference` and stands for nothing, as no file chooses what
is imported.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from snnprune.errors import InputError
from snnprune.plugins.user_code import is_importable, load_object

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
