"""`snnprune env`: what a bug report needs."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from snnprune.data.dataset import DataOptions
from snnprune.distributed.ranks import choose_device
from snnprune.measure import Natural
from snnprune.models.lif.choice import describe_choice
from snnprune.runtime import collect_versions, device_name, read_peak_memory


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took."""

    seconds: Mapping[str, float]
    """By stage."""
    peak_memory: Natural | None
    """The most that the process has had, in bytes."""
    peak_gpu_memory: Natural | None
    """The same of torch on a GPU."""


class StageTimer:
    """Seconds that passed in each stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block belongs to the stage `name`; a stage may be entered many times."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    def report(self, device: torch.device) -> dict[str, Any]:
        """So far, with the most memory that the process, and on a GPU torch, has had (bytes)."""
        on_gpu = device.type == "cuda"
        cost = Cost(
            seconds={name: round(seconds, 3) for name, seconds in self._seconds.items()},
            peak_memory=read_peak_memory(),
            peak_gpu_memory=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        )
        return asdict(cost)


def collect_environment() -> dict[str, str]:
    """Versions, devices and paths."""
    return {
        **collect_versions(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "device": device_name(choose_device()),
        "cuda": torch.version.cuda or "none",
        "lif": describe_choice(),
        "data root": str(DataOptions().find_folder()),
    }
