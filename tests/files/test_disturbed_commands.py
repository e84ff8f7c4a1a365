"""What a full disk or a kill leaves of the result of a command: the old one, or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("prune", "calibrate", "score", "export")


def disturbed(how: str, command: str, folder: Path, count: int = 0) -> None:
    script = Path(__file__).with_name("disturbed.py")
    done = subprocess.run(
        [sys.executable, script, how, command, folder, str(count)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_prune_killed_at_every_rename_and_at_some_moments_or_on_a_small_disk(
    tmp_path: Path,
) -> None:
    disturbed("quick", "prune", tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fails", "dies"])
@pytest.mark.parametrize("command", COMMANDS)
def test_at_every_flush_write_and_rename(how: str, command: str, tmp_path: Path) -> None:
    disturbed(how, command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_a_hundred_moments(command: str, tmp_path: Path) -> None:
    disturbed("kill", command, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_with_forty_limits_on_the_size_of_a_file(command: str, tmp_path: Path) -> None:
    disturbed("limit", command, tmp_path, 40)
