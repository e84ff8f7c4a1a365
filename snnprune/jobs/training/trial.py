"""The first batches of a loop, and what they take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from snnprune.runs import Stop, Unsaved
from snnprune.runs.run import Groups

T = TypeVar("T")
BATCHES = 2  # the first one pays for what is done once
PATIENCE = 5.0  # seconds; one batch that takes longer is enough


class Watch:
    """Progress that times each batch with the step that is done on it, all in seconds."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begun: float | None = None
        self.given = 0
        self.seconds: list[float] = []

    def is_enough(self) -> bool:
        """Whether the batch at hand is the last that is needed."""
        slow = self.begun is not None and time.monotonic() - self.begun > PATIENCE
        return self.given >= BATCHES or (self.given > 0 and slow)

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002  # see Progress
        """Pass batches on."""
        start = time.monotonic()
        self.begun = self.begun or start
        for item in items:
            self.given += 1
            try:
                yield item
            finally:  # a loop that was left does not come back
                finish_work(self.device)
                start, before = time.monotonic(), start
                self.seconds.append(start - before)

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Nothing around the block."""
        return nullcontext()

    def note(self, text: str) -> None:
        """Say nothing."""


class Enough(Stop):
    """True once a loop has done what there is to see."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __bool__(self) -> bool:
        return self.watch.is_enough()


class Sizes(Unsaved):
    """A run that keeps nothing but the size of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.state_bytes = 0

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:  # noqa: ARG002  # see Run
        """Weigh the tensors."""
        tensors = (tensor for named in groups.values() for tensor in named.values())
        self.state_bytes = sum(tensor.nbytes for tensor in tensors)


def finish_work(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Measure the memory of the GPU from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """What the GPU had to hold at once, or without one, this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # BSD counts bytes, Linux kilobytes


def model_bytes(module: nn.Module) -> int:
    """What its tensors take in a file."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())
