"""Flags that several commands share, written down once.

A command takes `subject: SubjectFlags` and `spread` gives it one flag per field.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from snnprune.criteria import CRITERIA

if TYPE_CHECKING:
    from snnprune.jobs.subject import SubjectOptions

F = TypeVar("F", bound=Callable[..., Any])


CRITERION_HELP = f"{', '.join(CRITERIA.rows)} or file.py:function; by default sf where it can work."
OUTPUT, INPUT = "Output", "Network and data"  # panels of --help


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """How a command talks."""

    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, nothing else.", rich_help_panel=OUTPUT),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress, no tables.", rich_help_panel=OUTPUT),
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


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Where data sets lie."""

    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the data sets; by default $SNNPRUNE_DATA or the cache.",
            rich_help_panel=INPUT,
        ),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch a data set that is not there.", rich_help_panel=INPUT
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What the work is done on."""

    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.", rich_help_panel=INPUT)
    ] = "auto"
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Of every random draw.", rich_help_panel=INPUT),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class SubjectFlags(DataFlags, RunFlags):
    """A checkpoint, its network and its data. What is left out is read off the file's metadata."""

    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A .safetensors or .pth file.")]
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Built-in name, package.module:function or file.py:function.",
            rich_help_panel=INPUT,
        ),
    ] = None
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="An argument of the model; repeatable.", rich_help_panel=INPUT
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Built-in name, imagefolder:DIR, tensors:FILE or file.py:function.",
            rich_help_panel=INPUT,
        ),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Images per forward pass.", rich_help_panel=INPUT),
    ] = 128

    def options(self, samples: int = 1024) -> SubjectOptions:
        """What these flags ask for; `samples` is the number of images to calibrate on."""
        from snnprune.jobs.subject import SubjectOptions
        from snnprune.recipe import parse_settings

        return SubjectOptions(
            checkpoint=self.checkpoint,
            model=self.model,
            model_args=parse_settings(self.model_arg or [], option="--model-arg"),
            data=self.data,
            data_root=self.data_root,
            download=self.download,
            device=self.device,
            batch_size=self.batch_size,
            samples=samples,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class ScoringFlags:
    """How weights are scored."""

    criterion: Annotated[str | None, typer.Option(metavar="NAME", help=CRITERION_HELP)] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Statistics that calibrate wrote, instead of a new pass."
        ),
    ] = None
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to calibrate on.")
    ] = 1024
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False

    def require_known(self) -> None:
        """Refuse an unknown criterion before torch is imported."""
        if self.criterion is not None:
            CRITERIA.require(self.criterion, field="--criterion")


def spread(command: F) -> F:
    """`command` with one parameter for each field of its parameters that are flag dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if hasattr(hint, "__dataclass_fields__")
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
            name: group(**{flag.name: values.pop(flag.name) for flag in flags[name]})
            for name, group in groups.items()
        }
        return command(**values, **built)

    # What typer reads: the command's own flags first, then the shared ones. mypy knows neither
    # that a function may be given a signature nor that `gathered` stands in for `command`.
    parameters = [*own, *(flag for shared in flags.values() for flag in shared)]
    gathered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gathered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gathered  # type: ignore[return-value]


def _flags(group: Any) -> list[inspect.Parameter]:
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
