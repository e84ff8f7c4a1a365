"""What the parts of the GPU check share: their flags, their lines of JSON, and their clocks."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLUSHED = 2**28  # bytes that are written between calls: several times the cache of any GPU


class Unavailable(Exception):  # noqa: N818  (it says what is not to be had, which is no error)
    """A candidate is not to be had here, and why."""


def make_parser(description: str) -> argparse.ArgumentParser:
    """The flags that every part takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="file of JSON lines; written anew")
    parser.add_argument("--device", type=torch.device, help="cuda where there is one, else cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the part itself")
    return parser


def read_flags(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Any:
    """The flags, the device chosen."""
    flags = parser.parse_args(arguments)
    if flags.device is None:
        flags.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return flags


class Lines:
    """Rows of a part, each a line of JSON that is in the file before the next is measured."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.write_text("", "utf-8")

    def add(self, **row: Any) -> None:
        """Write a row, and print it."""
        line = json.dumps(row)
        print(line, flush=True)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def say(error: BaseException) -> str:
    """An error in one line."""
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, Unavailable) else f"{type(error).__name__}: {first}"


def time_calls(
    call: Callable[[], object], device: torch.device, *, rounds: int, flushed: int = 0
) -> float:
    """Median milliseconds of a call, after a warm-up of a fifth of the rounds, one at least.

    On a GPU by its own events. `flushed` bytes are written before each call: what the last one left
    in the cache is gone, and the GPU is busy until the call has been queued.
    """
    for _ in range(max(1, rounds // 5)):
        call()
    time_rounds = time_on_gpu if device.type == "cuda" else time_on_cpu
    rest = torch.empty(flushed, dtype=torch.uint8, device=device)
    return statistics.median(time_rounds(call, rest, rounds))


def time_on_gpu(call: Callable[[], object], rest: Tensor, rounds: int) -> list[float]:
    """Milliseconds of each round by CUDA events; the device is awaited once, at the end."""
    pairs = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        rest.zero_()
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def time_on_cpu(call: Callable[[], object], rest: Tensor, rounds: int) -> list[float]:
    """Milliseconds of each round by the clock."""
    found = []
    for _ in range(rounds):
        rest.zero_()
        start = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - start))
    return found
