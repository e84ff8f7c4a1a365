"""A short `snnprune imp` of the bundled Fashion-MNIST images: `tickets.py --out FILE`.

Once with the neurons that a user gets, on a GPU once more with the kernels in Triton.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import Lines, make_parser, read_flags

RECIPE = (
    "training.epochs=4",
    "imp.methods=[imp, sf-imp-1]",
    "imp.sparsities=[0.8, 0.95]",
    "imp.rewind_epoch=1",
)
SMALL_RECIPE = (
    "model.args.width=1",
    "model.args.depth=1",
    "model.args.time_steps=1",
    "training.epochs=1",
    "training.batch_size=1000",
    "imp.methods=[sf-imp-1]",
    "imp.sparsities=[0.5]",
    "imp.rewind_epoch=0",
    "imp.samples=50",
)
POLL = 0.2  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it with each kind of neuron; the highest exit code."""
    flags = read_flags(make_parser("A short imp of Fashion-MNIST."), arguments)
    lines = Lines(flags.out)
    neurons = ("plain", "triton") if flags.device.type == "cuda" else ("plain",)
    return max(run(name, flags.device.type, lines, small=flags.small) for name in neurons)


def run(neurons: str, device: str, lines: Lines, *, small: bool) -> int:
    """Write a row for each ticket as it is found, and one at the end; the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder, errors = Path(scratch) / "run", Path(scratch) / "errors"
        with errors.open("w") as file, start(neurons, device, folder, file, small=small) as process:
            seen = 0
            while process.poll() is None:
                seen += add_tickets(folder, seen, neurons, began, lines)
                time.sleep(POLL)
        add_tickets(folder, seen, neurons, began, lines)
        said = errors.read_text("utf-8").strip().splitlines()
    why = {"failed": said[-1] if said else "no word"} if process.returncode else {}
    seconds = time.monotonic() - began
    lines.add(neurons=neurons, exit_code=process.returncode, seconds=seconds, **why)
    return process.returncode


def start(
    neurons: str, device: str, folder: Path, errors: Any, *, small: bool
) -> subprocess.Popen[bytes]:
    """The command in a process."""
    words = ["imp", "--recipe", "fashion-mnist-mini", "--device", device, "--out", str(folder)]
    for setting in SMALL_RECIPE if small else RECIPE:
        words += ["--set", setting]
    return subprocess.Popen(
        [sys.executable, "-m", "snnprune", *words, "--json"],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "SNNPRUNE_LIF": neurons, "NO_COLOR": "1"},
    )


def add_tickets(folder: Path, seen: int, neurons: str, began: float, lines: Lines) -> int:
    """Write those after the first `seen`; how many."""
    new = list(find_tickets(folder / "metrics.jsonl"))[seen:]
    for ticket in new:
        lines.add(
            neurons=neurons,
            method=ticket["method"],
            sparsity=ticket["pruned"] / ticket["prunable"],
            accuracy=ticket["test"]["accuracy"],
            since_start=time.monotonic() - began,
        )
    return len(new)


def find_tickets(metrics: Path) -> Iterator[dict[str, Any]]:
    """The tickets that a run has told of so far."""
    if metrics.exists():
        for line in metrics.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n") and (row := json.loads(line))["kind"] == "ticket":
                yield row


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run folder is removed
    sys.exit(main())
