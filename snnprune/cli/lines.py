"""Progress in a log: plain lines now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console

from snnprune.cli.stages import Stage, Stages, clock
from snnprune.escaping import printable

T = TypeVar("T")
SOONEST, LATEST = 15.0, 300.0  # seconds between two lines
SHARE = 40  # a line each time that work has taken so much longer: 1/40 of its time


class Lines:
    """A line when something takes long, rarer as time goes on, and one when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stages = Stages()
        self.last = 0.0

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Tell now and then how far it is; at the end, unless a block around it tells."""
        with self._entered(label, total) as stage:
            for item in items:
                yield item
                self.stages.advance(stage, item)
                self._tell_if_due()
            if len(self.stages.open) == 1:
                self._say(f"{stage.label}: done, {_spent(stage)}")

    @contextmanager
    def within(self, label: str, *, total: int, done: int = 0) -> Iterator[None]:
        """Tell at the end of the block that it is done, unless it was left by an error."""
        with self._entered(label, total, done, block=True) as stage:
            yield
            self._say(f"{stage.label}: done, {_spent(stage)}")

    def note(self, text: str) -> None:
        """Remember `text` for the next line."""
        self.stages.text = printable(text)

    @contextmanager
    def _entered(
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
            self._say("; ".join(_state(stage, now) for stage in self.stages.open))

    def _say(self, line: str) -> None:
        about = self.stages.about(time.monotonic())
        note = f", {about}" if about else ""
        self.console.print(f"{line}{note}", markup=False, soft_wrap=True)


def _state(stage: Stage, now: float) -> str:
    """How far a stage is, how long it took and how long it will take."""
    count = f"{stage.done:,} of {'?' if stage.total is None else f'{stage.total:,}'}"
    return f"{stage.label}: {count}, {clock(stage.elapsed(now))}, {clock(stage.left(now))} left"


def _spent(stage: Stage) -> str:
    done = f"{stage.done:,} of {stage.done if stage.total is None else stage.total:,}"
    seconds = stage.elapsed(time.monotonic())
    return f"{done}, {f'{seconds:.1f} s' if seconds < 60 else clock(seconds)}"
