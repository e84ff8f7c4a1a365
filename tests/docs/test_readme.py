"""README's commands do what README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def block_after(mark: str) -> str:
    """The shell commands of the fenced block under a mark."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, mark
    return found[1]


def test_the_two_commands_make_their_own_environment() -> None:
    for mark in ("command: demo", "command: test"):
        (command,) = block_after(mark).splitlines()
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_every_linked_page_and_picture_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).is_file(), target


@pytest.mark.slow
def test_the_common_jobs_work_as_pasted(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block_after("commands: jobs")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pruned.safetensors").is_file()
    assert (tmp_path / "magnitude.mask.safetensors").is_file()
