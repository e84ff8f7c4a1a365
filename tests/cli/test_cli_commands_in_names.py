"""Names that a CI server or a terminal would obey: nothing of a file's commands either."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snnprune.errors import disarm_line, format_json_line, make_printable

Run = Callable[..., subprocess.CompletedProcess[str]]

NAMES = (
    "::error file=x::boom",
    "  ::set-output name=x::boom",
    "##[error]boom",
    "a ##vso[task.setvariable variable=x]boom",
    "##teamcity[buildStop comment='x']",
    "a.::add-mask::b",
    f"{'long' * 30}.::error::at the begin of the second line of a table",
    "a\n::error::of a second line",
    "a\r::error::over the first",
    "\x1b[31mred",
    "\u202egnp.txt",
)
OBEYED = re.compile(r"^\s*::|##\w*\[|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", re.MULTILINE)
"""What GitHub, Azure DevOps and TeamCity look for in each line of a log, and what terminals do."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "h\x1b[31m\u202e\n::error::x.safetensors"
    save_file({f"{name}.weight": torch.randn(6, 6) for name in NAMES}, path)
    return path


COMMANDS = {
    "inspect": ["inspect", "CKPT"],
    "prune": ["prune", "CKPT", "--sparsity", "0.5", "-o", "OUT"],
    "prune to several": ["prune", "CKPT", "--sparsity", "0.5,0.7", "-o", "OUT"],
    "diff": ["diff", "CKPT", "CKPT"],
    "score": ["score", "CKPT", "-o", "OUT"],
    "check": ["check", "CKPT", "--max-layer-sparsity", "0.5"],
    "export": ["export", "CKPT", "--to", "packed", "-o", "OUT"],
    "a wrong model": ["inspect", "CKPT", "--model", "conv-snn"],
    "a wrong recipe": ["recipes", "validate", "CKPT"],
    "no such flag": ["inspect", "CKPT", "::error::x"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_no_name_of_a_file_or_in_it_commands_a_server_or_a_terminal(
    arguments: list[str], hostile: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "o\x1b[31m\u202e\n::error::x.safetensors"
    done = run(*({"CKPT": hostile, "OUT": out}.get(word, word) for word in arguments))
    said = done.stdout + done.stderr
    assert said
    assert OBEYED.search(said) is None, said


@pytest.mark.slow
def test_what_a_process_prints_and_where_it_says_that_it_wrote_commands_nothing(
    hostile: Path, process: Run, tmp_path: Path
) -> None:
    out = tmp_path / os.fsdecode(b"o\xff\x1b[31m\n##[error]x.safetensors")
    done = process("prune", hostile, "--sparsity", "0.5", "-o", out)
    assert done.returncode == 0, done.stderr
    assert OBEYED.search(done.stdout + done.stderr) is None
    assert r"\udcff\x1b[31m\n\x23#[error]x.safetensors" in done.stdout
    assert out.is_file()


def test_json_commands_nothing_and_is_exactly_what_the_file_says(hostile: Path, run: Run) -> None:
    done = run("inspect", hostile, "--json")
    assert OBEYED.search(done.stdout) is None
    found = json.loads(done.stdout)
    assert {layer["weight"] for layer in found["layers"]} == {f"{name}.weight" for name in NAMES}
    assert found["inputs"][0]["path"] == str(hostile)


def test_a_recipe_that_is_copied_and_found_valid_commands_nothing(
    process: Run, tmp_path: Path
) -> None:
    mine = tmp_path / "::error::x\n::error::\x1b[31m.yaml"
    copied, valid = process("recipes", "cp", "smoke", mine), process("recipes", "validate", mine)
    assert copied.returncode == valid.returncode == 0, valid.stderr
    assert OBEYED.search(copied.stdout + valid.stdout) is None


@pytest.mark.slow
def test_the_traceback_of_a_users_function_commands_nothing(
    hostile: Path, process: Run, tmp_path: Path
) -> None:
    code = tmp_path / "own.py"
    code.write_text("def build(): raise ValueError('x\\n::error::boom\\n##[error]\\x1b[31m')\n")
    done = process("inspect", hostile, "--model", f"{code}:build", "-v")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert OBEYED.search(done.stderr) is None


def test_what_commands_nothing_stays_as_it_is() -> None:
    names = ["layer.0.weight", "at::Tensor", "a:b", "# of spikes", "a # [b]", "file.py:name", ""]
    assert [make_printable(name) for name in names] == names
    assert [disarm_line(name) for name in names] == names
    assert format_json_line(names) == json.dumps(names)
