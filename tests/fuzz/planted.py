"""Readers with known faults, to see that the fuzzer finds them; run as a script by a test."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.bench import Bench
from corpus.case import Files

from fuzz.targets import Target
from fuzz.worker import Slice

LIMIT = 2.0  # seconds for an input: the sound reader below takes none


class Planted(Target):
    """Has seeds without a bench."""

    def seeds(self, bench: Bench) -> list[Files]:
        return [{"file": b"sound"}]


def sound(bench: Bench, folder: Path) -> object:
    return (folder / "file").read_bytes()


def raises(bench: Bench, folder: Path) -> object:
    return {b"sound": 1}[(folder / "file").read_bytes()]


def hangs(bench: Bench, folder: Path) -> object:
    while sound(bench, folder) != b"sound":
        time.sleep(0.01)
    return None


def fills(bench: Bench, folder: Path) -> object:
    return bytearray(1 << 36) if sound(bench, folder) != b"sound" else None


def dies(bench: Bench, folder: Path) -> object:
    if sound(bench, folder) != b"sound":
        os.kill(os.getpid(), signal.SIGSEGV)
    return None


def main(crashes: Path) -> None:
    for reader in (sound, raises, hangs, fills, dies):
        target = Planted(kinds=(), read=reader)
        bench: Bench = None  # type: ignore[assignment]  # these need none
        one = Slice(reader.__name__, target, bench, seed=0, crashes=crashes, limit=LIMIT)
        one.run(seconds=60, most=3)
        why = [
            json.loads(p.read_text())["why"] for p in crashes.glob(f"{reader.__name__}-*/*.json")
        ]
        print(json.dumps([reader.__name__, one.tally.inputs, one.tally.crashed, why]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
