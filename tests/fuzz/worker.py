"""Inputs for a target, read one after another in a forked process that is watched."""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corpus.bench import Bench
from corpus.case import Files, lay

from fuzz.mutate import mutated
from fuzz.targets import Refused, Target
from snnprune.errors import SnnpruneError

MEMORY = 4 * 2**30
"""Bytes that an input of some kilobytes may take beside what the process has; most for HDF5."""
SECONDS = 30.0
"""That an input may take, on a machine with other work to do."""
LAYOUT = struct.Struct("<qdqqq")
CRASHED = "crash"


@dataclass
class Tally:
    """How far a target is, and what came of its inputs."""

    number: int = 0
    """Of the input at hand, or the next one."""
    begun: float = 0.0
    """When it was begun, by the clock; 0 between two."""
    read: int = 0
    refused: int = 0
    crashed: int = 0

    @property
    def inputs(self) -> int:
        """That were read, refused or neither."""
        return self.read + self.refused + self.crashed


def input_of(name: str, target: Target, seeds: list[Files], seed: int, number: int) -> Files:
    """The input of that number, the same each time."""
    return mutated(seeds, target.ways, random.Random(f"{name}/{seed}/{number}"))


def outcome(target: Target, bench: Bench, files: Files, folder: Path) -> tuple[str, str]:
    """`read`, `refused`, or `crash` with what was raised."""
    lay(files, folder)
    try:
        value = target.read(bench, folder)
    except SnnpruneError:
        return "refused", ""
    except BaseException:  # whatever it is, it is what is looked for
        return CRASHED, traceback.format_exc()
    finally:
        shutil.rmtree(folder)
    return ("refused" if isinstance(value, Refused) else "read"), ""


class Slice:
    """A stretch of inputs of one target in a process of its own."""

    def __init__(
        self, name: str, target: Target, bench: Bench, *, seed: int, crashes: Path, limit: float
    ) -> None:
        self.name, self.target, self.bench, self.seed = name, target, bench, seed
        self.crashes, self.limit = crashes, limit
        self.seeds = target.seeds(bench)
        self.tally = Tally()
        self._shared = mmap.mmap(-1, LAYOUT.size)

    def run(self, seconds: float, most: int) -> None:
        """Read inputs for so long, or so many, in a child; note what it dies of or hangs in."""
        self._put(self.tally)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._work(seconds, most)
        died = self._watch(child)
        self.tally = self._get()
        if died:
            self._keep(died)
            self.tally.number += 1
        self.tally.begun = 0.0

    def _watch(self, child: int) -> str:
        """Wait for the child; what ended it, where that was not itself."""
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "" if status == 0 else f"died with status {status}"
            begun = self._get().begun
            if begun and time.monotonic() - begun > self.limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"no answer in {self.limit:g} s"
            time.sleep(0.02)

    def _work(self, seconds: float, most: int) -> None:
        """In the child: never returns."""
        code = 1
        try:
            _limit_memory()
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            with tempfile.TemporaryDirectory() as scratch:
                self._read_on(Path(scratch) / "here", time.monotonic() + seconds, most)
            code = 0
        finally:
            os._exit(code)

    def _read_on(self, folder: Path, end: float, most: int) -> None:
        tally = self.tally
        last = tally.number + most
        while time.monotonic() < end and tally.number < last:
            files = input_of(self.name, self.target, self.seeds, self.seed, tally.number)
            tally.begun = time.monotonic()
            self._put(tally)
            came, why = outcome(self.target, self.bench, files, folder)
            if came == CRASHED:
                self._keep(why)
                tally = self._get()
            elif came == "read":
                tally.read += 1
            else:
                tally.refused += 1
            tally.number += 1
            tally.begun = 0.0
            self._put(tally)

    def _keep(self, why: str) -> None:
        """Save the input at hand, if the like was not saved before; count it."""
        self.tally = self._get()
        number = self.tally.number
        files = input_of(self.name, self.target, self.seeds, self.seed, number)
        place = self.crashes / f"{self.name.replace(' ', '-')}-{_place_of(why)}"
        if not place.exists():
            lay(files, place / "here")
            about = {"target": self.name, "seed": self.seed, "number": number, "why": why}
            (place / "about.json").write_text(json.dumps(about, indent=2))
        self.tally.crashed += 1
        self._put(self.tally)

    def _put(self, tally: Tally) -> None:
        self._shared[:] = LAYOUT.pack(
            tally.number, tally.begun, tally.read, tally.refused, tally.crashed
        )

    def _get(self) -> Tally:
        return Tally(*LAYOUT.unpack(self._shared[:]))


def _place_of(why: str) -> str:
    """A short name that is the same for crashes at the same place."""
    lines = [line.strip() for line in why.splitlines() if line.strip().startswith('File "')]
    ours = [line for line in lines if "/snnprune/" in line] or lines or [why[:60]]
    kind = why.strip().splitlines()[-1].split(":")[0][:30]
    digest = random.Random(ours[-1] + kind).getrandbits(32)
    return f"{''.join(c for c in kind if c.isalnum())}-{digest:08x}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    held = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def told(tallies: Mapping[str, Tally]) -> list[str]:
    """A table of what came of all targets."""
    rows = [("target", "inputs", "read", "refused", "crashed")]
    rows += [
        (name, f"{t.inputs:,}", f"{t.read:,}", f"{t.refused:,}", f"{t.crashed:,}")
        for name, t in tallies.items()
    ]
    return ["".join(f"{cell:>12}" if n else f"{cell:24}" for n, cell in enumerate(r)) for r in rows]
