"""The parts on a pretended GPU, and our kernels by Triton's interpreter: `on_pretended_gpu.py DIR`.

With `all`, the three networks in place of a tiny one. SpikingJelly finds a GPU of capability 9.0
whose kernels in C++ were not built; what it runs is its own operation for CPUs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "devices"))

import torch
from pretended_gpu import pretend

EVENTS: list[str] = []
"""What was asked of the clock, in this order."""


class Event:
    """A CUDA event of a device that is always done."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        """Keep the time."""
        self.at = time.perf_counter()
        EVENTS.append("record")

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        assert EVENTS[-1] != "record", "read before it was awaited"
        return 1e3 * (end.at - self.at)


@contextlib.contextmanager
def same_device(device: object) -> Iterator[None]:
    """The current device is the only one."""
    yield


def pretend_more() -> None:
    """What the other tests do not ask of a GPU."""
    from snnprune.models.lif import choice

    for name, found in {
        "Event": Event,
        "device": same_device,
        "device_of": same_device,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: EVENTS.append("synchronize"),
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="pretended GPU", total_memory=10**9, major=9, minor=0
        ),
    }.items():
        setattr(torch.cuda, name, found)
    # what pretends is a mode too, and neurons that are watched are computed by torch's operations
    choice.is_watched = lambda tensor: False  # type: ignore[attr-defined]


def main() -> None:
    """Run those parts that are no processes of their own."""
    import bandwidth
    import environment
    import throughput

    from snnprune.models.networks import conv_snn

    out, *words = sys.argv[1:]
    if words != ["all"]:
        tiny = partial(conv_snn, in_channels=3, size=throughput.SMALL_SIDE, width=2, depth=2)
        throughput.MODELS = {"conv-snn": tiny}
    for part in (environment, bandwidth, throughput):
        path = Path(out) / f"{part.__name__}.jsonl"
        part.main(["--small", "--device", "cuda", "--out", str(path)])


if __name__ == "__main__":
    pretend()
    pretend_more()
    main()
    sys.stdout.flush()
    os._exit(0)  # once torch aborted at exit, after the last row
