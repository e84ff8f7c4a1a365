"""Where long work is: a stage for each block and each sequence that is being gone through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snnprune.errors import make_printable
from snnprune.runtime import read_peak_gpu_memory, read_peak_memory

UNIT = "samples/s"


@dataclass(kw_only=True, eq=False)
class Stage:
    """A stretch of work; times are seconds of a monotonic clock."""

    label: str
    total: int | None
    done: int
    before: int
    """What was done before this process began; it says nothing of the speed."""
    start: float
    end: float | None = None
    images: int = 0
    """In its items so far, where these are batches."""
    block: bool
    """Whether it counts the items of what lies in it, or has items of its own."""

    def elapsed(self, now: float) -> float:
        """Seconds since it began, up to its end."""
        return (now if self.end is None else self.end) - self.start

    def left(self, now: float) -> float | None:
        """Seconds that the rest takes at the mean speed so far; None where nothing is known."""
        new = self.done - self.before
        if self.total is None or new <= 0:
            return None
        return (self.total - self.done) * self.elapsed(now) / new

    def pace(self, now: float) -> float | None:
        """Images per second at the mean speed so far; None where its items are no batches."""
        seconds = self.elapsed(now)
        return self.images / seconds if self.images and seconds > 0 else None


class Stages:
    """The stages that work is in, the outermost first."""

    def __init__(self) -> None:
        self.open: list[Stage] = []
        self.shown: list[Stage] = []
        """Those too that ended last, until others begin at their depth."""
        self.text = ""

    @contextmanager
    def entered(
        self, label: str, *, total: int | None, done: int = 0, block: bool = False
    ) -> Iterator[Stage]:
        """One stage deeper for the block."""
        stage = Stage(
            label=make_printable(label),
            total=total,
            done=done,
            before=done,
            start=time.monotonic(),
            block=block,
        )
        self.text = ""
        self.open.append(stage)
        self.shown = self.open.copy()
        try:
            yield stage
        finally:
            self._leave(stage)

    def advance(self, stage: Stage, item: object = None) -> None:
        """`item` of `stage` is done, and of the blocks around it up to another such stage."""
        if stage not in self.open:
            return
        stage.done += 1
        stage.images += count_images(item)
        for around in reversed(self.open[: self.open.index(stage)]):
            if not around.block:
                return
            around.done = min(around.done + 1, around.total or 0)

    def about(self, now: float) -> str:
        """What is known of the item in hand: the note, the speed and the memory so far."""
        paces = [pace for stage in self.shown if (pace := stage.pace(now))]
        noted = UNIT in self.text or not paces
        speed = [] if noted else [f"{paces[-1]:,.0f} {UNIT}"]
        return ", ".join(filter(None, [self.text, *speed, format_memory()]))

    def _leave(self, stage: Stage) -> None:
        """End `stage`, with what a loop that was left early has not closed yet."""
        if stage not in self.open:
            return
        for ended in self.open[self.open.index(stage) :]:
            ended.end = time.monotonic()
            self.open.remove(ended)


def count_images(item: object) -> int:
    """How many images are in a batch x or (x, y); 0 of anything else.

    Labels are counted where there are some, as time may come first in x.
    """
    if known := getattr(item, "samples", None):
        return int(known)
    parts = item if isinstance(item, tuple | list) else (item,)
    shapes = [shape for part in parts[:2] if (shape := getattr(part, "shape", None))]
    return int(shapes[-1][0]) if shapes else 0


def format_memory() -> str:
    """The most memory so far: of the GPU where one is in use, else of the process."""
    gpu = read_peak_gpu_memory()
    peak = read_peak_memory() if gpu is None else gpu
    return "" if peak is None else f"{peak / 1e9:.1f} GB{'' if gpu is None else ' on the GPU'}"


def print_line(console: Console, text: str) -> None:
    """Print `text` on one line, however wide."""
    console.print(make_printable(text), markup=False, soft_wrap=True)


def format_clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


T = TypeVar("T")
WIDEST = 110  # columns; longer bars say no more
BAR = 10  # columns of a bar at least, with the blanks around it


class ProgressBars:
    """Drawn while there is work, gone when it ends; lines that are printed appear above."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stages = Stages()
        self.live: Live | None = None
        self.label_width = 0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Draw a bar while `items` are gone through."""
        with self._draw_until_end(label), self.stages.entered(label, total=total) as stage:
            for item in items:
                yield item
                self.stages.advance(stage, item)

    @contextmanager
    def within(self, label: str, *, total: int, done: int = 0) -> Iterator[None]:
        """Draw a bar above those of the block."""
        with (
            self._draw_until_end(label),
            self.stages.entered(label, total=total, done=done, block=True),
        ):
            yield

    def note(self, text: str) -> None:
        """Show `text` below the bars."""
        self.stages.text = make_printable(text)

    def announce(self, text: str) -> None:
        """Print `text` above the bars."""
        print_line(self.console, text)

    @contextmanager
    def _draw_until_end(self, label: str) -> Iterator[None]:
        """Draw until the outermost of the blocks ends."""
        # labels seen before keep their width, so that the bars stay where they are
        self.label_width = max(self.label_width, cell_len(make_printable(label)))
        if self.live is not None:
            yield
            return
        with Live(console=self.console, transient=True, get_renderable=self._render) as self.live:
            try:
                yield
            finally:
                self.live = None

    def _render(self) -> RenderableType:
        now = time.monotonic()
        return render_bars(
            self.stages.shown.copy(),
            self.stages.about(now),
            now=now,
            width=self.console.width,
            label_width=self.label_width,
        )


def render_bars(
    stages: Sequence[Stage], text: str, *, now: float, width: int, label_width: int
) -> RenderableType:
    """What a terminal of `width` columns shows; always a line for `text`, so that none jumps."""
    cells = [_format_cells(stage, now) for stage in stages]
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


def _format_cells(stage: Stage, now: float) -> tuple[str, str, str]:
    """What stands beside a bar."""
    return (
        _format_done(stage),
        format_clock(stage.elapsed(now)),
        f"{format_clock(stage.left(now))} left",
    )


def _format_done(stage: Stage) -> str:
    """How many are done, as wide at the beginning as at the end."""
    if stage.total is None:
        return f"{stage.done:,}"
    total = f"{stage.total:,}"
    return f"{stage.done:{len(total)},}/{total}"


SOONEST, LATEST = 15.0, 300.0  # seconds between two lines
SHARE = 40  # a line each time that work has taken so much longer: 1/40 of its time


class ProgressLines:
    """A line when something takes long, rarer as time goes on, and one when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stages = Stages()
        self.last = 0.0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Tell now and then how far it is; at the end, unless a block around it tells."""
        with self._enter_stage(label, total) as stage:
            for item in items:
                yield item
                self.stages.advance(stage, item)
                self._tell_if_due()
            if len(self.stages.open) == 1:
                self._say(f"{stage.label}: done, {_format_spent(stage)}")

    @contextmanager
    def within(self, label: str, *, total: int, done: int = 0) -> Iterator[None]:
        """Tell at the end of the block that it is done, unless it was left by an error."""
        with self._enter_stage(label, total, done, block=True) as stage:
            yield
            self._say(f"{stage.label}: done, {_format_spent(stage)}")

    def note(self, text: str) -> None:
        """Remember `text` for the next line."""
        self.stages.text = make_printable(text)

    def announce(self, text: str) -> None:
        """Print `text`."""
        print_line(self.console, text)

    @contextmanager
    def _enter_stage(
        self, label: str, total: int | None, done: int = 0, *, block: bool = False
    ) -> Iterator[Stage]:
        if not self.stages.open:
            self.last = time.monotonic()
        with self.stages.entered(label, total=total, done=done, block=block) as stage:
            yield stage

    def _tell_if_due(self) -> None:
        now = time.monotonic()
        outermost = self.stages.open[0]
        if now - self.last > min(max(outermost.elapsed(now) / SHARE, SOONEST), LATEST):
            self.last = now
            self._say("; ".join(_format_state(stage, now) for stage in self.stages.open))

    def _say(self, line: str) -> None:
        about = self.stages.about(time.monotonic())
        note = f", {about}" if about else ""
        self.console.print(f"{line}{note}", markup=False, soft_wrap=True)


def _format_state(stage: Stage, now: float) -> str:
    """How far a stage is, how long it took and how long it will take."""
    count = f"{stage.done:,} of {'?' if stage.total is None else f'{stage.total:,}'}"
    elapsed, left = format_clock(stage.elapsed(now)), format_clock(stage.left(now))
    return f"{stage.label}: {count}, {elapsed}, {left} left"


def _format_spent(stage: Stage) -> str:
    done = f"{stage.done:,} of {stage.done if stage.total is None else stage.total:,}"
    seconds = stage.elapsed(time.monotonic())
    return f"{done}, {f'{seconds:.1f} s' if seconds < 60 else format_clock(seconds)}"
