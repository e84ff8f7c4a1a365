"""What a command took: seconds by stage, and memory."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from snnprune.memory import peak_memory


class Cost:
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
        return {
            "seconds": {name: round(seconds, 3) for name, seconds in self._seconds.items()},
            "peak_memory": peak_memory(),
            "peak_gpu_memory": torch.cuda.max_memory_allocated(device)
            if device.type == "cuda"
            else None,
        }
