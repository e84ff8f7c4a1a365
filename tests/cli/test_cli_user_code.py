"""Code of the user's own: its faults are told as theirs, and a file chooses none of it."""

import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]


def test_a_stranger_cannot_choose_code_to_run(run: Run, tmp_path: Path) -> None:
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
    assert run("inspect", path).returncode == 0
    assert run("score", path).returncode == 0
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


def test_a_builtin_is_no_model_function(model_file: Path, run: Run) -> None:
    done = run("score", model_file, "--model", "builtins:int")
    assert_one_line(done, 3, "--model", "builtins:int")


def test_the_users_own_traceback_is_shown_on_request(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def build():\n    raise ValueError('mine')\n")
    done = run("score", model_file, "--model", f"{file}:build", "-v")
    assert "mine.py" in done.stderr
    assert "line 2, in build" in done.stderr


OWN = """
from snnprune.pruning.criteria import criterion


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


@pytest.mark.slow
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
        "from snnprune.models.networks import conv_snn\n"
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


FAULTS = """
import sys
import warnings

import torch
from snnprune.models.networks import conv_snn


def build():
    warnings.warn("a warning of mine")
    print("printed while building")
    return conv_snn(in_channels=1, size=28, classes=10, width=4, depth=2, time_steps=2)


def needs_more(a, b):
    return build()


def raises_in_forward():
    module = build()
    module.register_forward_pre_hook(lambda *_: sys.exit("no more"))
    return module


def forward(model, x):
    print("printed while running")
    return model(x)


def leaves(model, x):
    sys.exit(0)


def alone(model):
    return model


def raises(*given):
    raise ValueError("no luck")


def nothing(*given):
    return None


def whole_numbers(output):
    return output.sum(0).long()


def of_another_batch(output):
    return output.sum(0)[:1]


def scores(output):
    print("printed while reading")
    return output.sum(0)


def data():
    return [(torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64))]


def endless():
    while True:
        yield torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)


def breaks_off():
    yield torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)
    raise OSError("the disk is gone")


def words():
    yield "x", "y"


def labels_as_list():
    yield torch.zeros(4, 1, 28, 28), [[0], [0, 0]]


def whole_pictures():
    yield torch.zeros(4, 1, 28, 28, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)


def fractional_labels():
    yield torch.zeros(4, 1, 28, 28), torch.zeros(4)


def no_label_fits():
    yield torch.zeros(4, 1, 28, 28), torch.full((4,), 10)


def needs_a_path(path):
    yield path


def out_of_memory(model, x):
    raise MemoryError
"""


@pytest.fixture
def mine(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `mine.py` and `model.safetensors`."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FAULTS)
    Path("model.safetensors").write_bytes(model_file.read_bytes())
    return tmp_path


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("flag", "name", "words"),
    [
        ("--model", "needs_more", "needs_more raised TypeError"),
        (
            "--model",
            "raises_in_forward",
            "a batch of shape (4, 1, 28, 28) raised SystemExit",
        ),
        ("--model", "nothing", "returned NoneType, not a torch.nn.Module"),
        ("--forward", "leaves", "leaves on a batch of shape (4, 1, 28, 28) raised SystemExit: 0"),
        ("--forward", "alone", "raised TypeError: alone() takes 1 positional argument"),
        ("--forward", "raises", "raised ValueError: no luck"),
        ("--forward", "FAULTS", "has no 'FAULTS'"),
        ("--forward", "torch", "is not a function"),
        ("--readout", "raises", "mine.py:raises raised ValueError: no luck"),
        ("--readout", "nothing", "mine.py:nothing returned NoneType for 4 samples"),
        ("--readout", "leaves", "mine.py:leaves raised TypeError"),
        ("--readout", "whole_numbers", "returned a int64 tensor of shape (4, 10)"),
        ("--readout", "of_another_batch", "returned a float32 tensor of shape (1, 10)"),
        ("--data", "raises", "mine.py:raises raised ValueError: no luck"),
        ("--data", "breaks_off", "mine.py:breaks_off raised OSError: the disk is gone"),
        ("--data", "nothing", "mine.py:nothing returned None"),
        ("--data", "needs_a_path", "raised TypeError: needs_a_path() missing 1 required"),
        ("--data", "words", "gave a tuple of str, str as batch 1"),
        ("--data", "labels_as_list", "a list in a batch is no tensor"),
        ("--data", "fractional_labels", "labels of shape (4,) and type torch.float32"),
        ("--data", "no_label_fits", "label 10 for a network of 10 classes"),
    ],
)
def test_every_fault_of_a_users_function_is_theirs_with_a_traceback_on_request_only(
    flag: str, name: str, words: str, mine: Path, run: Run
) -> None:
    flags = {"--model": "mine.py:build", "--data": "mine.py:data", flag: f"mine.py:{name}"}
    given = [part for pair in flags.items() for part in pair]
    with warnings.catch_warnings(action="ignore"):
        done = run("eval", "model.safetensors", *given)
    assert_one_line(done, 3, flag, words)
    assert done.stdout == ""


@pytest.mark.slow
def test_what_a_users_function_prints_and_warns_is_not_in_the_result(
    mine: Path, process: Run, as_json: Json
) -> None:
    flags = ["--model", "mine.py:build", "--data", "mine.py:data", "--forward", "mine.py:forward"]
    done = process("eval", "model.safetensors", *flags, "--readout", "mine.py:scores", "--json")
    assert done.returncode == 0, done.stderr
    assert as_json(done)["evaluation"]["labelled"] == 4
    for words in ("a warning of mine", "while building", "while running", "while reading"):
        assert words in done.stderr
    assert "error" not in done.stderr


def test_endless_data_end_at_the_samples_asked_for(mine: Path, run: Run, as_json: Json) -> None:
    flags = ("--data", "mine.py:endless", "--samples", "10", "--json")
    assert as_json(run("eval", "model.safetensors", *flags))["evaluation"]["samples"] == 12
    done = run("calibrate", "model.safetensors", "-o", "c.safetensors", *flags)
    assert as_json(done)["samples"] == 12


def test_a_users_function_that_runs_out_of_memory_ends_with_that_code(mine: Path, run: Run) -> None:
    flags = ("--data", "mine.py:data", "--forward", "mine.py:out_of_memory")
    assert_one_line(run("eval", "model.safetensors", *flags), 7, "out of memory", "--batch-size")
