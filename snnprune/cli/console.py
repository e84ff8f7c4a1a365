"""stdout is the result and nothing else; stderr is for people who wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from snnprune.cli.bars import Bars
from snnprune.cli.flags import ShowFlags
from snnprune.cli.lines import Lines
from snnprune.escaping import printable
from snnprune.files import require_apart, require_free
from snnprune.launch import place
from snnprune.progress import SILENT, Progress

WIDTH = 80  # where the width is not known


class _Console(Console):
    """A console whose reader may leave."""

    def on_broken_pipe(self) -> None:
        """Leave it to `failures.run`; rich would end the process as if something were wrong."""
        raise BrokenPipeError


class Screen:
    """Where a command's result, warnings and progress go; of several processes the first shows."""

    def __init__(
        self,
        flags: ShowFlags,
        *,
        report: Path | None = None,
        force: bool = False,
        junit: Path | None = None,
    ) -> None:
        """`report` is the folder for the report and its pages, which `force` may replace.

        Raises:
            OutputError: they are in the way.
            UsageError: `junit` is one of them.
        """
        self.flags, self.report = flags, report
        if report is not None:
            require_room(report, force=force, junit=junit)
        self.first = place().first
        no_color = True if flags.no_color else None  # None: rich asks NO_COLOR
        width = None if sys.stdout.isatty() else WIDTH
        silent = not self.first
        self.out = _Console(width=width, highlight=False, no_color=no_color, quiet=silent)
        self.err = _Console(stderr=True, highlight=False, no_color=no_color, quiet=silent)

    @property
    def width(self) -> int:
        """Columns that a table may take."""
        return self.out.width

    def progress(self) -> Progress:
        """Bars on a terminal, plain lines in a log, nothing when quiet."""
        if self.flags.quiet or not self.first:
            return SILENT
        return Bars(self.err) if self.err.is_terminal else Lines(self.err)

    def result(self, *shown: RenderableType, report: dict[str, Any]) -> None:
        """The tables and lines of a result, or its report as JSON; pages where they are wanted.

        Raises:
            OutputError: a page cannot be written.
        """
        if self.report is not None and self.first:
            shown = (*shown, f"wrote {_left(self.report, report)}")
        if self.flags.as_json and self.first:
            print(json.dumps(report))
        elif not self.flags.as_json:
            shown = tuple(one for one in shown if isinstance(one, str) or not self.flags.quiet)
            for renderable, following in zip(shown, (*shown[1:], ""), strict=True):
                self.out.print(renderable, soft_wrap=isinstance(renderable, str), markup=False)
                if not isinstance(renderable, str) and not isinstance(following, str):
                    self.out.print()  # between two tables
        if not self.flags.as_json:
            self.warn(report.get("warnings", ()))

    def say(self, line: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.flags.quiet:
            self.err.print(printable(line), markup=False, soft_wrap=True)

    def warn(self, warnings: Iterable[str]) -> None:
        """Lines on stderr that begin with `warning:`."""
        for warning in warnings:
            self.err.print(f"warning: {printable(warning)}", markup=False, soft_wrap=True)


def require_room(folder: Path, *, force: bool, junit: Path | None = None) -> None:
    """Refuse, before any work is done, a folder in which a report cannot be left.

    Raises:
        OutputError: one of its files is there or cannot be made.
        UsageError: `junit` is one of them.
    """
    from snnprune.pages import FILES

    if junit is not None:
        require_apart(junit, (folder / name for name in FILES), field="--junit")
    for name in FILES:
        require_free(folder / name, force=force)


def _left(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write a report and its pages; the page for people."""
    from snnprune.pages import write_report

    return next(path for path in write_report(folder, report) if path.suffix == ".html")
