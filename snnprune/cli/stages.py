"""Where long work is: a stage for each block and each sequence that is being gone through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from snnprune.escaping import printable
from snnprune.memory import peak_gpu_memory, peak_memory

UNIT = "images/s"


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

    def advance(self, stage: Stage, item: object = None) -> None:
        """`item` of `stage` is done, and of the blocks around it up to another such stage."""
        if stage not in self.open:
            return
        stage.done += 1
        stage.images += images_in(item)
        for around in reversed(self.open[: self.open.index(stage)]):
            if not around.block:
                return
            around.done = min(around.done + 1, around.total or 0)

    def about(self, now: float) -> str:
        """What is known of the item in hand: the note, the speed and the memory so far."""
        paces = [pace for stage in self.shown if (pace := stage.pace(now))]
        noted = UNIT in self.text or not paces
        speed = [] if noted else [f"{paces[-1]:,.0f} {UNIT}"]
        return ", ".join(filter(None, [self.text, *speed, memory()]))

    def _leave(self, stage: Stage) -> None:
        """End `stage`, with what a loop that was left early has not closed yet."""
        if stage not in self.open:
            return
        for ended in self.open[self.open.index(stage) :]:
            ended.end = time.monotonic()
            self.open.remove(ended)


def images_in(item: object) -> int:
    """How many images are in a batch x or (x, y); 0 of anything else.

    Labels are counted where there are some, as time may come first in x.
    """
    if known := getattr(item, "samples", None):
        return int(known)
    parts = item if isinstance(item, tuple | list) else (item,)
    shapes = [shape for part in parts[:2] if (shape := getattr(part, "shape", None))]
    return int(shapes[-1][0]) if shapes else 0


def memory() -> str:
    """The most memory so far: of the GPU where one is in use, else of the process."""
    gpu = peak_gpu_memory()
    peak = peak_memory() if gpu is None else gpu
    return "" if peak is None else f"{peak / 1e9:.1f} GB{'' if gpu is None else ' on the GPU'}"


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
