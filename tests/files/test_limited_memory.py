"""Commands on a file larger than the memory that they may have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("limited.py")
COMMANDS = {"inspect", "prune", "diff", "export", "calibrate"}


def under_limits(folder: Path, count: int) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "count",
    [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.faults)],
)
def test_too_little_memory_is_told_in_one_line_and_changes_no_output(
    count: int, tmp_path: Path
) -> None:
    found = under_limits(tmp_path, count)
    print(found)
    assert found.keys() == COMMANDS
    for codes in found.values():
        assert codes["7"]
        assert sum(codes.values()) == count
