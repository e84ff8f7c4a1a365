"""Flags that only the command line itself reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from snnprune.jobs.targets.options import Options

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
