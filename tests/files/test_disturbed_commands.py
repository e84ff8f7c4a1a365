"""What a full disk or a kill leaves of the result of a command: the old one, or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("prune", "calibrate", "score", "export")


TESTS = Path(__file__).parent
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs")


def done_by(script: str, *words: object, before: tuple[str, ...] = ()) -> None:
    done = subprocess.run(
        [*before, sys.executable, TESTS / script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.slow
def test_prune_killed_at_every_rename_and_at_some_moments_or_on_a_small_disk(
    tmp_path: Path,
) -> None:
    done_by("disturbed.py", "quick", "prune", tmp_path, 2)


@pytest.mark.slow
def test_finetune_killed_a_few_times(tmp_path: Path) -> None:
    done_by("disturbed_run.py", "kill", tmp_path, 2)


@pytest.mark.slow
def test_on_a_disk_of_8_kb_that_is_full_the_old_results_stay(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    apart = ("unshare", "--map-root-user", "--mount")
    tried = subprocess.run([*apart, *MOUNT, tmp_path / "disk"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.decode().strip()}")
    done_by("on_a_full_disk.py", tmp_path, *COMMANDS, before=apart)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["fails", "dies"])
@pytest.mark.parametrize("command", COMMANDS)
def test_at_every_flush_write_and_rename(how: str, command: str, tmp_path: Path) -> None:
    done_by("disturbed.py", how, command, tmp_path, 0)


@pytest.mark.faults
@pytest.mark.parametrize(("how", "count"), [("kill", 100), ("limit", 40)])
@pytest.mark.parametrize("command", COMMANDS)
def test_at_a_hundred_moments_and_with_forty_sizes(
    how: str, count: int, command: str, tmp_path: Path
) -> None:
    done_by("disturbed.py", how, command, tmp_path, count)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("how", "count"), [("fails", 1), ("dies", 1), ("kill", 100), ("limit", 40)]
)
def test_finetune_goes_on_after_whatever_ended_it(how: str, count: int, tmp_path: Path) -> None:
    done_by("disturbed_run.py", how, tmp_path, count)
