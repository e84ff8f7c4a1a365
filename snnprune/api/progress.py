"""How far a call is: bars in a notebook or on a terminal, nothing in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from typing import Any, TypeVar

from rich.console import Console

from snnprune.cli.progress import ProgressBars, Stage, Stages, format_clock
from snnprune.errors import UsageError, make_printable
from snnprune.runtime import SILENT, Progress

FIRST, EVERY = 0.5, 0.25  # seconds before a bar is seen, and between two looks at it
METHODS = ("track", "within", "note", "announce")

T = TypeVar("T")


def choose_progress(asked: bool | Progress | None) -> Progress:
    """What tells how far the work is; None: whatever somebody can see.

    Raises:
        UsageError: it is neither True, False, None nor an object with the methods of `Progress`.
    """
    if asked is False:
        return SILENT
    if asked is not None and asked is not True:
        if not all(hasattr(asked, name) for name in METHODS):
            raise UsageError(
                f"a {type(asked).__name__} tells nobody anything",
                field="progress",
                hint="give True, False or an object as snnprune.runtime.Progress",
            )
        return asked
    if (display := _find_notebook()) is not None:
        return NotebookBars(display)
    shown = asked is True or sys.stderr.isatty()
    return ProgressBars(Console(stderr=True, highlight=False)) if shown else SILENT


def _find_notebook() -> Any:
    """What shows something below a cell, where this is a notebook's kernel; else None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display").display


class NotebookBars:
    """Bars below a cell while there is work, gone when it ends."""

    def __init__(self, display: Any) -> None:
        """`display` is IPython's."""
        self._display = display
        self._stages = Stages()
        self._handle: Any = None
        self._next = 0.0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Draw a bar while `items` are gone through."""
        with self._enter(label, total) as stage:
            for item in items:
                self._draw()
                yield item
                self._stages.advance(stage, item)

    @contextmanager
    def within(self, label: str, *, total: int, done: int = 0) -> Iterator[None]:
        """Draw a bar above those of the block."""
        with self._enter(label, total, done, block=True):
            yield

    def note(self, text: str) -> None:
        """Show `text` below the bars."""
        self._stages.text = make_printable(text)

    def announce(self, text: str) -> None:
        """Print `text` above them."""
        print(make_printable(text), file=sys.stderr)

    @contextmanager
    def _enter(
        self, label: str, total: int | None, done: int = 0, *, block: bool = False
    ) -> Iterator[Stage]:
        outermost = not self._stages.open
        if outermost:
            self._next = time.monotonic() + FIRST
        try:
            with self._stages.entered(label, total=total, done=done, block=block) as stage:
                yield stage
        finally:
            if outermost and self._handle is not None:
                self._show("")

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        rows = "".join(_format_row(stage, now) for stage in self._stages.open)
        about = f'<div style="opacity:.7">{escape(self._stages.about(now))}</div>'
        self._show(f'<div style="font-size:.85em">{rows}{about}</div>')

    def _show(self, html: str) -> None:
        data = {"text/html": html, "text/plain": ""}
        if self._handle is None:
            self._handle = self._display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def _format_row(stage: Stage, now: float) -> str:
    of = "" if stage.total is None else f"/{stage.total:,}"
    told = f"{stage.done:,}{of}, {format_clock(stage.left(now))} left"
    limits = "" if stage.total is None else f' value="{stage.done}" max="{max(1, stage.total)}"'
    return (
        '<div style="display:flex;gap:1em;align-items:center">'
        f'<span style="min-width:16em">{escape(stage.label)}</span>'
        f'<progress{limits} style="width:16em"></progress><span>{escape(told)}</span></div>'
    )
