"""Two real processes of torchrun at work on a run folder, and what they leave there."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pace import pace

TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"),
    "2",
)
PAUSE = 0.02
LIMIT = 300  # seconds: three processes import torch, perhaps beside other tests


class Launched:
    """A command in two processes, which begins a run or takes up the one in the folder."""

    def __init__(self, recipe: str | Path, out: Path, *more: str, command: str = "imp") -> None:
        self.out, self.ranks = out, list[int]()
        self.told = out.with_name(f"{out.name}.told")
        self.locked = _lock(out)
        how = ["--resume"] if (out / "recipe.yaml").exists() else ["--recipe", str(recipe)]
        words = [command, *how, "--out", str(out), "--device", "cpu", "-q", *more]
        with self.told.open("w") as told:
            self.process = subprocess.Popen(
                [*TORCHRUN, "-m", "snnprune", *words],
                stdout=told,
                stderr=told,
                env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            )

    def wait_until_at_work(self) -> None:
        """Both ranks have met, and the first has locked the folder."""
        deadline = _deadline()
        while _lock(self.out) in (self.locked, ""):
            assert self.process.poll() is None, self.told.read_text()
            assert time.monotonic() < deadline
            time.sleep(PAUSE)
        self.ranks = _children(self.process.pid)

    def require_end(self) -> None:
        """It comes to its end by itself."""
        assert self.process.wait(_limit()) == 0, self.told.read_text()

    def require_nobody_left(self) -> None:
        """All of its processes end by themselves, whichever of them was killed."""
        self.process.wait(_limit())
        deadline = _deadline()
        while any(map(alive, self.ranks)):
            assert time.monotonic() < deadline, self.told.read_text()
            time.sleep(PAUSE)


def alive(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def metrics(out: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def results(out: Path, *, whole: bool = True) -> dict[str, bytes]:
    """All that a run keeps but its states, pictures and reports, which tell of times."""
    kept = [path for path in out.rglob("*.safetensors") if path.parent.name != "state"]
    names = ("metrics.jsonl", "recipe.yaml", *(("table.md", "DONE") if whole else ()))
    tables = [out / name for name in names]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*kept, *tables]}


def sums_hold(out: Path) -> bool:
    """Whether `sha256sum -c` finds all as it was written."""
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=out, capture_output=True, check=False
    )
    return done.returncode == 0


def _children(process: int) -> list[int]:
    """The ranks in their order: their numbers are in their environments."""
    found = subprocess.run(
        ["pgrep", "-P", str(process)], capture_output=True, text=True, check=True
    ).stdout.split()
    return sorted(map(int, found), key=_rank)


def _rank(process: int) -> int:
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(int(word[5:]) for word in environment if word.startswith(b"RANK="))


def _lock(out: Path) -> str:
    """Who holds the folder, or held it last."""
    path = out / "run.lock"
    return path.read_text() if path.exists() else ""


def _limit() -> float:
    return LIMIT * pace()


def _deadline() -> float:
    return time.monotonic() + _limit()
