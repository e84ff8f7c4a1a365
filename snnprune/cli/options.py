"""From a command that takes options to one that typer can read, and the flags of every command."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import ParameterInfo

from snnprune.cli.completion import make_completer
from snnprune.cli.streams import tell_of_loading
from snnprune.errors import InputError, SnnpruneError, UsageError
from snnprune.jobs.targets.options import ConfigOptions, FurtherOptions, Options, ReadAs
from snnprune.jobs.targets.settings import Config, load_config

OUTPUT = "Output"  # a panel of --help


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """How a command talks."""

    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, nothing else.", rich_help_panel=OUTPUT),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No progress, no tables; the lines below them stay.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Tracebacks of your own code.", rich_help_panel=OUTPUT
        ),
    ] = False
    no_color: Annotated[
        bool,
        typer.Option("--no-color", help="Plain text; so does NO_COLOR.", rich_help_panel=OUTPUT),
    ] = False


F = TypeVar("F", bound=Callable[..., Any])


def expand_options(command: F) -> F:
    """`command` with one parameter for each flag of its parameters that are `Options`.

    These have been checked when the command runs, in the order of its parameters.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Options]] = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, Options)
    }
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    flags = {name: _flags(group) for name, group in groups.items()}
    settled = next((name for name, one in groups.items() if issubclass(one, ConfigOptions)), None)
    if settled is not None:
        own.append(CONTEXT)

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        typed = _list_typed(values.pop(CONTEXT.name, None))
        given = {
            name: {flag.name: values.pop(flag.name) for flag in flags[name]} for name in groups
        }
        used = None
        if settled is not None and typed is not None:
            used = _apply_config(groups[settled], flags[settled], given[settled], typed)
        with name_file_of_settings(used):
            built = {
                name: group(**_plain(flags[name], given[name])) for name, group in groups.items()
            }
            for options in built.values():
                options.check()
            read = {
                name: dataclasses.replace(options, **_read(flags[name], given[name]))
                for name, options in built.items()
            }
            if settled is not None:
                read[settled] = _note_config(read[settled], used)
            with _tell_of_waiting(read.values()):
                return command(**values, **read)

    # What typer reads: the command's own flags first, then those of its options. mypy knows neither
    # that a function may be given a signature nor that `gathered` stands in for `command`.
    shown = sorted((flag for group in flags.values() for flag in group), key=lambda flag: flag.last)
    parameters = [*own, *(flag.parameter for flag in shown)]
    gathered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gathered  # type: ignore[return-value]


CONTEXT = inspect.Parameter(
    "typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
)
"""Typer's own parameter: it knows what was typed."""


def _list_typed(context: typer.Context | None) -> frozenset[str] | None:
    """The parameters that the command line gives; None where a command is called without one."""
    if context is None:
        return None
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )


def _apply_config(
    group: type[Options], flags: Iterable[_Flag], given: dict[str, Any], typed: Collection[str]
) -> Config | None:
    """Fill into `given` what the file of settings says where nothing was typed; what it was.

    Raises:
        InputError: the file cannot be used, or names code without the user's consent.
        UsageError: a file and none are asked for.
    """
    assert issubclass(group, ConfigOptions)
    asked = {name: given[name] for name in ("config", "no_config", "trust_config")}
    if asked["config"] is not None and asked["no_config"]:
        raise UsageError("either --config or --no-config")
    config = load_config(asked["config"], search=not asked["no_config"])
    if config is None:
        return None
    known = {flag.key: flag for flag in flags if flag.key in group.KEYS}
    used = config.select(known, [key for key, flag in known.items() if flag.name in typed])
    used.require_consent(trusted=asked["trust_config"])
    given |= {known[key].name: value for key, value in used.values.items()}
    return used if used.values else None


@contextlib.contextmanager
def _tell_of_waiting(groups: Collection[Options]) -> Iterator[None]:
    """In the block somebody at a terminal sees at once what takes so long, unless quiet."""
    if any(isinstance(one, ShowOptions) and one.quiet for one in groups):
        yield
        return
    named = (getattr(one, name, None) for one in groups for name in ("checkpoint", "recipe"))
    opened = next(filter(None, named), None)
    with tell_of_loading(f"opening {opened}" if opened else None):
        yield


def _note_config(options: Options, used: Config | None) -> Options:
    assert isinstance(options, ConfigOptions)
    return dataclasses.replace(options, used=used)


@contextlib.contextmanager
def name_file_of_settings(used: Config | None) -> Iterator[None]:
    """A fault of a value in the block that comes from a file of settings names file and key."""
    try:
        yield
    except SnnpruneError as error:
        flag = (error.field or "").partition(" ")[0]
        key = flag.removeprefix("--")
        if used is None or key == flag or key not in used.values:
            raise
        raise InputError(error.message, file=used.path, field=key, hint=error.hint) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Flag:
    """A field that a command line gives."""

    parameter: inspect.Parameter
    read: Callable[[Any], Any] | None = None
    """Makes the field's value of what typer read, where that is something else."""
    last: bool
    """Whether it comes after those of all other options."""

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def key(self) -> str:
        """The name that its words begin with, without dashes."""
        *_, info = get_args(self.parameter.annotation)
        words = [  # within Annotated the first of them is what typer takes for a default so far
            word
            for word in (info.default, *(info.param_decls or ()))
            if isinstance(word, str) and word.startswith("--")
        ]
        return words[0][2:] if words else self.name.replace("_", "-")


def _plain(flags: Iterable[_Flag], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose values are what typer read."""
    return {flag.name: given[flag.name] for flag in flags if flag.read is None}


def _read(flags: Iterable[_Flag], given: Mapping[str, Any]) -> dict[str, Any]:
    """The other fields, made of what typer read; those that got nothing keep their default."""
    return {
        flag.name: flag.read(given[flag.name])
        for flag in flags
        if flag.read is not None and given[flag.name] is not None
    }


def _flags(group: type[Options]) -> list[_Flag]:
    """The fields of `group` that typer's Option or Argument annotates, in order."""
    hints = get_type_hints(group, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(group)}
    return [
        _flag(fields[name], *notes, last=FurtherOptions in declaring.__bases__)
        for name, declaring in _order_fields(group)
        if any(map(_is_of_typer, notes := get_args(hints[name])))
    ]


def _order_fields(group: type[Options]) -> list[tuple[str, type]]:
    """Each field and the class that has the last word on it.

    Those of the group itself come first, then those of each base, which go on from what it is of.
    """
    said = {name: kind for kind in group.__mro__[::-1] for name in inspect.get_annotations(kind)}
    bases = (kind for base in group.__bases__ for kind in base.__mro__[::-1])
    return [
        (name, kind)
        for kind in dict.fromkeys((group, *bases))
        for name in inspect.get_annotations(kind)
        if said[name] is kind
    ]


def _is_of_typer(note: object) -> bool:
    return isinstance(note, ParameterInfo)


def _flag(field: dataclasses.Field[Any], kind: Any, *notes: Any, last: bool) -> _Flag:
    """The flag of a field of type `kind` that these notes annotate."""
    read = next((note for note in notes if isinstance(note, ReadAs)), None)
    given, default = (kind, field.default) if read is None else (read.given, read.default)
    info = next(filter(_is_of_typer, notes))
    annotated: Any = Annotated  # of a type that is known only here
    named = inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotated[given, info]
    )
    info.autocompletion = make_completer(_Flag(parameter=named, last=last).key)
    parameter = inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        annotation=annotated[given, info],
    )
    return _Flag(parameter=parameter, read=read.read if read else None, last=last)
