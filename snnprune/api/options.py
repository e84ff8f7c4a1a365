"""What a call says beside network and batches: the options of its command, by name and as Python.

Errors name flags; a caller reads the names of options in their place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from typer.models import ParameterInfo

from snnprune.api.given import GivenData, describe_object, take_model
from snnprune.errors import SnnpruneError, UsageError, convert_torch_error, did_you_mean
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.targets.options import TargetOptions

ELSEWHERE = {
    "checkpoint": "the network is the first argument",
    "model": "the network is the first argument",
    "model_args": "the network is the first argument, as it was made",
    "data": "the batches are the second argument",
    "state_dict": "load it into the network",
    "calibration": "statistics are taken anew",
    "sparsities": "give sparsity=0.8",
}
"""Fields that no caller sets, and what to do instead."""
OURS = ("given", "learnt_from")
FUNCTIONS = ("forward", "readout")
"""Options that may be functions of the caller's."""

T = TypeVar("T", bound=TargetOptions)


def read_options(
    kind: type[T], model: Any, data: GivenData, values: Mapping[str, Any], **read: Any
) -> T:
    """The options of a command about `model` and `data`, checked; some are `read` already.

    Raises:
        UsageError: one is unknown, of another kind, or out of its range.
        InputError: see `take_model`.
    """
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    _require_known(values, fields)
    functions = {name: values[name] for name in FUNCTIONS if callable(values.get(name))}
    read |= {
        name: describe_object(value) if name in functions else _read_value(name, hints[name], value)
        for name, value in values.items()
    }
    given = take_model(model, data, **functions)
    name = Path(given.name.rpartition(":")[2])
    if _is_required(fields, "out"):
        read["out"] = name.with_name(f"{name.name}.safetensors")
    options = kind(checkpoint=name, given=given, data=data.name, **read)
    options.check()
    return options


def _require_known(values: Iterable[str], fields: Mapping[str, dataclasses.Field[Any]]) -> None:
    elsewhere = {name: hint for name, hint in ELSEWHERE.items() if name in fields}
    if _is_required(fields, "out"):
        elsewhere["out"] = "save(path) of the result writes it"
    known = [name for name in fields if name not in (*elsewhere, *OURS)]
    for name in values:
        if name in elsewhere:
            raise UsageError("is no option here", field=name, hint=elsewhere[name])
        if name not in known:
            shown = [*known, "sparsity"] if "sparsities" in fields else known
            raise UsageError("unknown option", field=name, hint=did_you_mean(name, shown))


def _is_required(fields: Mapping[str, dataclasses.Field[Any]], name: str) -> bool:
    return name in fields and fields[name].default is dataclasses.MISSING


def read_sparsity(value: Any) -> float:
    """The sparsity of a call.

    Raises:
        UsageError: it is no number.
    """
    if isinstance(value, list | tuple):
        raise UsageError("is several", field="sparsity", hint="call it once for each")
    found: float = _read_number("sparsity", float, value)
    return found


def _read_value(name: str, hint: Any, value: Any) -> Any:
    """`value` as the field has it whose annotation is `hint`.

    Raises:
        UsageError: it is of another kind, or out of the range that the flag has.
    """
    notes = hint.__metadata__ if get_origin(hint) is typing.Annotated else ()
    kinds = _list_kinds(get_args(hint)[0] if notes else hint)
    if value is None and type(None) in kinds:
        return None
    info = next((note for note in notes if isinstance(note, ParameterInfo)), None)
    read = next(reader for kind, reader in READERS.items() if kind in kinds)
    found = read(name, kinds[0], value)
    least = getattr(info, "min", None)
    if least is not None and found < least:
        raise UsageError(f"{found} is below {least}", field=name)
    return found


def _list_kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, without what they are of."""
    parts = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(get_origin(part) or part for part in parts)


def _read_number(name: str, kind: type, value: Any) -> Any:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return operator.index(value) if kind is int else float(value)
    except (TypeError, ValueError):
        what = "whole number" if kind is int else "number"
        raise UsageError(f"{value!r} is no {what}", field=name) from None


def _read_flag(name: str, _: type, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{value!r} is neither True nor False", field=name)
    return value


def _read_text(name: str, _: type, value: Any) -> str:
    """Text; a number as somebody would type it, and a function by where it is."""
    if name == "augment" and isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    if callable(value):
        named = describe_object(getattr(value, "function", value))  # of a criterion
        if "<" in named:
            raise UsageError(
                f"{named} cannot be found by its name",
                field=name,
                hint="define it outside of functions",
            )
        return named
    if not isinstance(value, str | int | float | Path) or isinstance(value, bool):
        raise UsageError(f"{value!r} is no text", field=name)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _read_path(name: str, _: type, value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise UsageError(f"{value!r} is no path", field=name)
    return Path(value)


def _read_names(name: str, _: type, value: Any) -> tuple[str, ...]:
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise UsageError(f"{value!r} is no list of names", field=name)
    return tuple(parts)


def _read_table(name: str, _: type, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{value!r} is no dict", field=name)
    return dict(value)


READERS: dict[Any, Callable[[str, type, Any], Any]] = {
    bool: _read_flag,
    int: _read_number,
    float: _read_number,
    str: _read_text,
    Path: _read_path,
    tuple: _read_names,
    Mapping: _read_table,
}
"""What reads a value for a field of a type."""

FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
SPOKEN = {
    "--data": "batches",
    "--model": "model",
    "--link": "links",
    "--no-eval": "evaluate=False",
    "--no-tune": "no_tune=True",
    "-o": "path",
    "-v": "the cause above",
}
"""Flags that are called otherwise than their options."""
FIELDS = frozenset(field.name for field in dataclasses.fields(PruneOptions)) | {
    "split",
    "limit",
    "sparsity",
}


@contextlib.contextmanager
def speak_python() -> Iterator[None]:
    """Errors in the block name options and not flags; what torch says of memory is one of ours."""
    try:
        yield
    except SnnpruneError as error:
        error.message = name_options(error.message)
        error.hint = error.hint and name_options(error.hint)
        error.field = error.field and name_options(error.field)
        error.args = (error.message,)
        raise
    except Exception as error:
        if (ours := convert_torch_error(error)) is not None:
            ours.hint = ours.hint and name_options(ours.hint)
            raise ours from error
        raise


def name_options(text: str) -> str:
    """`text` with the names of options in place of flags."""
    return FLAG.sub(_name_option, text)


def _name_option(found: re.Match[str]) -> str:
    flag = found[0]
    name = flag.lstrip("-").replace("-", "_")
    return SPOKEN.get(flag) or (name if name in FIELDS else flag)
