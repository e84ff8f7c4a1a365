"""Fuzz all readers, or some: inputs that crash one are kept, and make the exit code 1.

    python tests/fuzz/run.py --minutes 10 [--target NAME]... [--seed N]
    python tests/fuzz/run.py --replay FOLDER

Each input is one of the corpus's good files, bent by a random generator that knows the seed, the
target and the number of the input, so that the same numbers make the same files. It may be read, or
refused with an error of snnprune's own; anything else, more than 30 s or 4 GiB is a crash.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; a fork keeps no threads
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="fuzz-state-")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from corpus.bench import Bench

from fuzz.targets import TARGETS
from fuzz.undisturbed import undisturbed
from fuzz.worker import SECONDS, Slice, Tally, told

SLICE = 5.0  # seconds that a target has before the next one


def main(arguments: list[str]) -> int:
    """The exit code: 0 where nothing crashed."""
    asked = _parsed(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, undisturbed():
        bench = Bench(Path(scratch) / "bench")
        if asked.replay:
            return _replay(asked.replay, bench)
        tallies = fuzz(bench, asked)
    print("\n".join(told(tallies)))
    crashed = sum(tally.crashed for tally in tallies.values())
    print(f"{sum(t.inputs for t in tallies.values()):,} inputs, {crashed:,} crashed")
    if crashed:
        print(f"see {asked.crashes}; --replay FOLDER reads one of them again")
    return 1 if crashed else 0


def fuzz(bench: Bench, asked: argparse.Namespace) -> dict[str, Tally]:
    """Run the targets in turns until the time is over."""
    slices = [
        Slice(
            name,
            TARGETS[name],
            bench,
            seed=asked.seed,
            crashes=asked.crashes,
            limit=asked.limit,
        )
        for name in asked.target or TARGETS
    ]
    for one in slices:  # what is imported late is imported once, before the first fork
        one.target.read(bench, _laid(one, bench))
    end = time.monotonic() + 60 * asked.minutes
    while time.monotonic() < end:
        for one in slices:
            one.run(min(SLICE, max(0.0, end - time.monotonic())), most=10**9)
            far = one.tally
            print(f"{one.name}: {far.inputs:,} inputs, {far.crashed:,} crashed", flush=True)
    return {one.name: one.tally for one in slices}


def _laid(one: Slice, bench: Bench) -> Path:
    from corpus.case import lay

    folder = bench.folder / "seeds" / one.name.replace(" ", "-")
    lay(one.seeds[0], folder)
    return folder


def _replay(folder: Path, bench: Bench) -> int:
    about = json.loads((folder / "about.json").read_text())
    print(f"{about['target']}, seed {about['seed']}, input {about['number']}:\n{about['why']}")
    print("now:")
    print(TARGETS[about["target"]].read(bench, folder / "here"))
    return 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=SECONDS, help="seconds for an input")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"))
    parser.add_argument("--replay", type=Path, metavar="FOLDER")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
