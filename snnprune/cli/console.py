"""Where a command's result, warnings and progress go, with nothing in them that commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import (
    Console,
    ConsoleOptions,
    ConsoleRenderable,
    RenderableType,
    RenderHook,
    RenderResult,
)
from rich.segment import Segment
from rich.text import Text

from snnprune.cli.options import ShowOptions
from snnprune.cli.progress import ProgressBars, ProgressLines
from snnprune.cli.streams import WIDTH, clear_waiting, take_stdout
from snnprune.errors import disarm_line, escape_hidden, format_json_line, make_printable
from snnprune.runtime import SILENT, Progress, read_process_rank


class _Harmless:
    """What a renderable shows, without what a terminal or a CI server would obey.

    Its lines are looked at as they come out: a table breaks names where it likes.
    """

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its segments; of each line the first that is no blank is what commands."""
        blank = True
        for text, style, control in console.render(self.renderable, options):
            if control:
                yield Segment(text, style, control)
                continue
            for line in text.splitlines(keepends=True):
                shown = escape_hidden(line)
                yield Segment(disarm_line(shown) if blank else shown, style)
                blank = line.endswith("\n") or (blank and not line.strip())


class _Guard(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(one) for one in renderables]


def _make_console(*, no_color: bool | None, quiet: bool, **options: Any) -> Console:
    """A console on which nothing that comes from a file commands."""
    console = Console(highlight=False, no_color=no_color, quiet=quiet, **options)
    console.push_render_hook(_Guard())
    return console


class Screen:
    """Where a command's result, warnings and progress go; of several processes the first shows."""

    def __init__(
        self,
        flags: ShowOptions,
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
            from snnprune.report.pages import require_room  # and all that draws

            require_room(report, force=force, junit=junit)
        self.first = read_process_rank().first
        no_color = True if flags.no_color else None  # None: rich asks NO_COLOR
        silent = not self.first
        self.stdout = take_stdout()
        width = None if self.stdout.isatty() else WIDTH
        self.out = _make_console(file=self.stdout, width=width, no_color=no_color, quiet=silent)
        self.err = _make_console(stderr=True, no_color=no_color, quiet=silent)

    @property
    def width(self) -> int:
        """Columns that a table may take."""
        return self.out.width

    def progress(self) -> Progress:
        """Bars on a terminal, plain lines in a log, nothing when quiet."""
        if self.flags.quiet or not self.first:
            return SILENT
        return ProgressBars(self.err) if self.err.is_terminal else ProgressLines(self.err)

    def result(self, *shown: RenderableType, report: dict[str, Any]) -> None:
        """The tables and lines of a result, or its report as JSON; pages where they are wanted.

        Raises:
            OutputError: a page cannot be written.
        """
        clear_waiting()
        if self.report is not None and self.first:
            shown = (*shown, f"wrote {_write_report(self.report, report)}")
        if self.flags.as_json and self.first:
            print(format_json_line(report), file=self.stdout)
        if not self.flags.as_json:
            self._show([one for one in shown if isinstance(one, str) or not self.flags.quiet])
            self.note(report.get("notes", ()))
            self.warn(report.get("warnings", ()))

    def _show(self, shown: Sequence[RenderableType]) -> None:
        """Lines as they are, each on one, and tables with a blank line between two."""
        for one, following in zip(shown, (*shown[1:], ""), strict=True):
            if isinstance(one, str):
                self.out.print(make_printable(one, None), soft_wrap=True, markup=False)
                continue
            self.out.print(one, markup=False)
            if not isinstance(following, str):
                self.out.print()

    def say(self, line: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.flags.quiet:
            self.err.print(make_printable(line), markup=False, soft_wrap=True)

    def note(self, notes: Iterable[str]) -> None:
        """Lines on stderr that begin with `note:`, unless quiet."""
        for line in () if self.flags.quiet else notes:
            self.err.print(Text(f"note: {make_printable(line)}", style="dim"), soft_wrap=True)

    def warn(self, warnings: Iterable[str]) -> None:
        """Lines on stderr that begin with `warning:`."""
        for warning in warnings:
            line = Text.assemble(("warning:", "yellow"), f" {make_printable(warning)}")
            self.err.print(line, soft_wrap=True)


def _write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write a report and its pages; the page for people."""
    from snnprune.report.pages import write_report

    return next(path for path in write_report(folder, report) if path.suffix == ".html")
