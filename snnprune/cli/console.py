"""stdout is the result and nothing else; stderr is for people who wait."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from snnprune.cli.flags import ShowFlags
from snnprune.escaping import printable
from snnprune.progress import SILENT, Progress

T = TypeVar("T")
WIDTH = 80  # where the width is not known
LOG_EVERY = 15.0  # seconds between two lines of progress in a log


class _Console(Console):
    """A console whose reader may leave."""

    def on_broken_pipe(self) -> None:
        """Leave it to `failures.run`; rich would end the process as if something were wrong."""
        raise BrokenPipeError


class Screen:
    """Where a command's result, warnings and progress go."""

    def __init__(self, flags: ShowFlags) -> None:
        self.flags = flags
        no_color = True if flags.no_color else None  # None: rich asks NO_COLOR
        width = None if sys.stdout.isatty() else WIDTH
        self.out = _Console(width=width, highlight=False, no_color=no_color)
        self.err = _Console(stderr=True, highlight=False, no_color=no_color)

    @property
    def width(self) -> int:
        """Columns that a table may take."""
        return self.out.width

    def progress(self) -> Progress:
        """Bars on a terminal, plain lines in a log, nothing when quiet."""
        if self.flags.quiet:
            return SILENT
        return Bars(self.err) if self.err.is_terminal else Lines(self.err)

    def result(self, *shown: RenderableType, report: dict[str, Any]) -> None:
        """The tables and lines of a result, or its report as JSON."""
        if self.flags.as_json:
            print(json.dumps(report))
        else:
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


class Bars:
    """A bar with what is done, how long it took and how long it will take."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Bar | None = None

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Draw a bar while `items` are gone through."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bar(*columns, console=self.console, transient=True) as self.bar:
            task = self.bar.add_task(label, total=total, note="")
            for item in items:
                yield item
                self.bar.advance(task)
        self.bar = None

    def note(self, text: str) -> None:
        """Show `text` at the end of the bar."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[-1], note=text)


class Lines:
    """A line when something begins to take long, and one when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.text = ""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Tell now and then how far it is."""
        start = last = time.monotonic()
        self.text = ""
        done = 0
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last > LOG_EVERY:
                last = now
                self._say(f"{label}: {done} of {total or '?'}, {now - start:.0f} s")
        self._say(f"{label}: done, {done} of {total or done}, {time.monotonic() - start:.1f} s")

    def note(self, text: str) -> None:
        """Remember `text` for the next line."""
        self.text = text

    def _say(self, line: str) -> None:
        note = f", {self.text}" if self.text else ""
        self.console.print(f"{line}{note}", markup=False, soft_wrap=True)
