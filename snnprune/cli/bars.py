"""Progress on a terminal: a bar for each stage, one below the other, and a line about the item."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snnprune.cli.stages import Stage, Stages, clock
from snnprune.escaping import printable

T = TypeVar("T")
WIDEST = 110  # columns; longer bars say no more
BAR = 10  # columns of a bar at least, with the blanks around it


class Bars:
    """Drawn while there is work, gone when it ends; lines that are printed appear above."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stages = Stages()
        self.live: Live | None = None
        self.label_width = 0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Draw a bar while `items` are gone through."""
        with self._drawn(label), self.stages.entered(label, total=total) as stage:
            for item in items:
                yield item
                self.stages.advance(stage, item)

    @contextmanager
    def within(self, label: str, *, total: int, done: int = 0) -> Iterator[None]:
        """Draw a bar above those of the block."""
        with (
            self._drawn(label),
            self.stages.entered(label, total=total, done=done, block=True),
        ):
            yield

    def note(self, text: str) -> None:
        """Show `text` below the bars."""
        self.stages.text = printable(text)

    @contextmanager
    def _drawn(self, label: str) -> Iterator[None]:
        """Draw until the outermost of the blocks ends."""
        # labels seen before keep their width, so that the bars stay where they are
        self.label_width = max(self.label_width, cell_len(printable(label)))
        if self.live is not None:
            yield
            return
        with Live(console=self.console, transient=True, get_renderable=self._picture) as self.live:
            try:
                yield
            finally:
                self.live = None

    def _picture(self) -> RenderableType:
        now = time.monotonic()
        return picture(
            self.stages.shown.copy(),
            self.stages.about(now),
            now=now,
            width=self.console.width,
            label_width=self.label_width,
        )


def picture(
    stages: Sequence[Stage], text: str, *, now: float, width: int, label_width: int
) -> RenderableType:
    """What a terminal of `width` columns shows; always a line for `text`, so that none jumps."""
    cells = [_cells(stage, now) for stage in stages]
    room = (
        min(width, WIDEST)
        - BAR
        - sum(1 + max(map(len, column)) for column in zip(*cells, strict=True))
    )
    table = Table.grid(expand=True, padding=(0, 1))
    table.width = min(width, WIDEST)
    table.add_column(width=max(1, min(label_width, room)), no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    for stage, beside in zip(stages, cells, strict=True):
        bar = ProgressBar(total=stage.total, completed=stage.done)
        table.add_row(Text(stage.label), bar, *beside)
    return Group(table, Text(text, no_wrap=True, overflow="ellipsis"))


def _cells(stage: Stage, now: float) -> tuple[str, str, str]:
    """What stands beside a bar."""
    return _count(stage), clock(stage.elapsed(now)), f"{clock(stage.left(now))} left"


def _count(stage: Stage) -> str:
    """How many are done, as wide at the beginning as at the end."""
    if stage.total is None:
        return f"{stage.done:,}"
    total = f"{stage.total:,}"
    return f"{stage.done:{len(total)},}/{total}"
