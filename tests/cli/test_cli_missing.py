"""A checkpoint that cannot be read: refused at once, by every command that takes one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "inspect": [],
    "calibrate": ["-o", "out.safetensors"],
    "score": [],
    "prune": ["--sparsity", "0.5", "-o", "out.safetensors"],
    "eval": [],
}
PROBE = """
import sys
from snnprune.cli import run_app, run_command

commands = {commands!r}
print([run_app(run_command, [name, {path!r}, *flags]) for name, flags in commands.items()])
print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing.safetensors", "no such file. check the path"),
        (".", "is a folder, not a regular file. name a file in it"),
        ("empty.pth", "empty file. copy or download it again"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_refused_without_torch(
    tmp_path: Path, path: str, said: str
) -> None:
    (tmp_path / "empty.pth").touch()
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(commands=COMMANDS, path=path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    codes, torch_is_there = done.stdout.splitlines()
    assert json.loads(codes) == [3] * len(COMMANDS)
    assert done.stderr.splitlines() == [f"error: {path}: {said}"] * len(COMMANDS)
    assert torch_is_there == "False"
