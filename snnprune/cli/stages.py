"""Where long work is: a stage for each block and each sequence that is being gone through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from snnprune.escaping import printable


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
            label=printable(label),
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

    def advance(self, stage: Stage) -> None:
        """An item of `stage` is done, and of the blocks around it up to another such stage."""
        if stage not in self.open:
            return
        stage.done += 1
        for around in reversed(self.open[: self.open.index(stage)]):
            if not around.block:
                return
            around.done = min(around.done + 1, around.total or 0)

    def _leave(self, stage: Stage) -> None:
        """End `stage`, with what a loop that was left early has not closed yet."""
        if stage not in self.open:
            return
        for ended in self.open[self.open.index(stage) :]:
            ended.end = time.monotonic()
            self.open.remove(ended)


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
