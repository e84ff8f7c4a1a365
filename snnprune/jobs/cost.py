"""What a command took: seconds by stage, and memory."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch


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
            "peak_memory": _peak_memory(),
            "peak_gpu_memory": torch.cuda.max_memory_allocated(device)
            if device.type == "cuda"
            else None,
        }


def _peak_memory() -> int | None:
    """The largest resident set so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
