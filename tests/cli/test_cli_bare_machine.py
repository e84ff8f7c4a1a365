"""Machines that lack what others have: a terminal, a home, room, a language, a steady clock."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snnprune.runtime import find_cache_folder

Done = subprocess.CompletedProcess[str]
NEEDED = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
FLAGS = ["--sparsity", "0.5", "--criterion", "magnitude", "--repair", "none", "--no-eval"]
BARE = {
    "nothing at all": {},
    "no such home": {"HOME": "/nonexistent"},
    "a home and caches that take no files": dict.fromkeys(
        (
            *("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"),
            *("MPLCONFIGDIR", "SNNPRUNE_CACHE"),
        ),
        "/proc",
    ),
    "no place for temporary files": {"TMPDIR": "/nonexistent"},
    "plain ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "one column": {"COLUMNS": "1"},
    "columns below zero": {"COLUMNS": "-3", "LINES": "0"},
    "columns that are no number": {"COLUMNS": "wide"},
    "a terminal of no kind": {"TERM": ""},
}


@pytest.mark.many(1)
@pytest.mark.parametrize("name", BARE)
def test_a_network_is_pruned_there(tmp_path: Path, model_file: Path, name: str) -> None:
    out = tmp_path / "out.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "snnprune", "prune", model_file, *FLAGS, "-o", out],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**NEEDED, "SNNPRUNE_CACHE": str(find_cache_folder()), **BARE[name]},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "out.mask.safetensors" in done.stdout
    assert out.exists()


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_bit(
    tmp_path: Path, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    steady, jumping = tmp_path / "steady", tmp_path / "jumping"
    width = ("--set", "model.args.width=4")
    assert run("train", "--recipe", "smoke", *width, "--out", steady).returncode == 0
    jumps = itertools.cycle([4e9, 0.0, 1e9, -1.0])  # the time of day, set back and forth
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9))
    done = run("train", "--recipe", "smoke", *width, "--out", jumping)
    monkeypatch.undo()
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (jumping / name).read_bytes() == (steady / name).read_bytes()
