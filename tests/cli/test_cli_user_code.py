"""Code of the user's own: its faults are told as theirs, and a file chooses none of it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import save_file

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_stranger_cannot_choose_code_to_run(process: Run, tmp_path: Path) -> None:
    code, proof = tmp_path / "evil.py", tmp_path / "ran"
    code.write_text(f"open({str(proof)!r}, 'w')\ndef build(): ...\n")
    path = tmp_path / "m.safetensors"
    spec = json.dumps({"name": f"{code}:build", "args": {}})
    data = json.dumps({"name": f"{code}:build"})
    save_file(
        {"a.weight": torch.ones(2, 2)},
        path,
        metadata={"snnprune.model": spec, "snnprune.data": data},
    )
    assert process("inspect", path).returncode == 0
    assert process("score", path).returncode == 0
    assert not proof.exists()


def test_a_file_that_asks_for_a_huge_network_is_refused_quickly(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    spec = json.dumps({"name": "conv-snn", "args": {"width": 60000, "depth": 4}})
    save_file({"a.weight": torch.ones(2, 2)}, path, metadata={"snnprune.model": spec})
    assert_one_line(run("inspect", path), 3, "does not fit the model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_here\n", "ModuleNotFoundError"),
        ("def build(): return 42\n", "not a torch.nn.Module"),
        ("def build(): raise ValueError('mine')\n", "raised ValueError: mine"),
        ("import sys\ndef build(): sys.exit(0)\n", "SystemExit"),
        ("", "has no 'build'"),
    ],
)
def test_a_fault_in_the_users_model_function_is_told_as_theirs(
    text: str, words: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert_one_line(run("score", model_file, "--model", f"{file}:build"), 3, words)


def test_the_users_own_traceback_is_shown_on_request(
    model_file: Path, process: Run, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def build():\n    raise ValueError('mine')\n")
    done = process("score", model_file, "--model", f"{file}:build", "-v")
    assert "mine.py" in done.stderr
    assert "line 2, in build" in done.stderr


OWN = """
from snnprune.criteria import criterion


@criterion(needs="weight")
def boom(evidence):
    raise ValueError("no luck")


@criterion(needs="weight")
def three(evidence):
    return 3


def crash(candidates, count):
    raise ValueError("no luck")


def nothing(candidates, count):
    return {}


def dense(candidates, count):
    return {key: magnitudes >= 0 for key, magnitudes in candidates.magnitudes.items()}
"""


@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("--criterion", "boom", "boom raised ValueError: no luck"),
        ("--criterion", "three", "gives int instead of a tensor"),
        ("--allocation", "crash", "crash raised ValueError: no luck"),
        ("--allocation", "nothing", "gives no mask for every weight"),
        ("--allocation", "dense", "prunes 0 weights instead of"),
    ],
)
def test_faults_in_a_users_own_criterion_or_allocation_are_told_as_theirs(
    flag: str, name: str, words: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    out = tmp_path / "p.safetensors"
    common = ("--sparsity", "0.5", "--no-eval", "--samples", "8")
    done = run("prune", model_file, "-o", out, *common, flag, f"{file}:{name}")
    assert_one_line(done, 3, words)
    assert not out.exists()


def test_arguments_of_the_users_own_model_are_remembered(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from snnprune.models.conv_snn import conv_snn\n"
        "def build(*, in_channels, size, classes, width):\n"
        "    return conv_snn(in_channels=in_channels, size=size, classes=classes, width=width,\n"
        "                    depth=1, time_steps=1)\n"
    )
    model = f"{file}:build"
    flags = ("--set", f"model.name={model}", "--set", "model.args={width: 3}")
    done = run("train", "--recipe", "smoke", *flags, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run" / "model.safetensors"
    done = run("score", checkpoint, "--model", model, "--samples", "8")
    assert done.returncode == 0, done.stderr
    assert "criterion sf" in done.stdout


def test_data_that_the_model_does_not_take_is_told_in_one_line(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    save_file({"x": torch.zeros(4, 3, 28, 28)}, tmp_path / "x.safetensors")
    data = f"tensors:{tmp_path / 'x.safetensors'}"
    done = run("score", model_file, "--data", data)
    assert_one_line(done, 3, "running the model on a batch of shape (2, 3, 28, 28)")
