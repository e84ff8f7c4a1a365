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

if TYPE_CHECKING:
    from snnprune.jobs.subject import SubjectOptions

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """How a command talks."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="More detail; tracebacks of your own code.")
    ] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text; so does NO_COLOR.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Where data sets lie."""

    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets.", envvar="SNNPRUNE_DATA", show_envvar=True),
    ] = None
    download: Annotated[bool, typer.Option(help="Fetch a data set that is not there.")] = False


@dataclass(frozen=True, kw_only=True)
class SubjectFlags(DataFlags):
    """A checkpoint, its network and its data. What is left out is read off the file's metadata."""

    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A .safetensors or .pth file.")]
    model: Annotated[
        str | None, typer.Option(help="Built-in name, package.module:function or file.py:function.")
    ] = None
    model_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An argument of the model; repeatable.")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="Built-in name, imagefolder:DIR, tensors:FILE or file.py:function."),
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto"
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 128
    seed: Annotated[int, typer.Option(min=0, help="Of every random draw.")] = 0

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


def spread(command: F) -> F:
    """`command` with one parameter for each field of its parameters that are flag dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters, owner = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        for flag in _flags(groups[name]):
            owner[flag.name] = name
            parameters.append(flag)

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        grouped: dict[str, dict[str, Any]] = {name: {} for name in groups}
        for flag, group in owner.items():
            grouped[group][flag] = values.pop(flag)
        built = {name: groups[name](**given) for name, given in grouped.items()}
        return command(**values, **built)

    # typer reads these two; required parameters come first, as in any signature
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
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
