"""Numbers that look right and are not: each is told, with what to do."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

from snnprune.jobs.train.recipes import ARGUMENTS
from snnprune.models import ModelSpec, build_model

Run = Callable[..., subprocess.CompletedProcess[str]]

DATA = """
import torch
def pictures(): return torch.rand(4, 1, 28, 28)
def spoilt(value):
    x = pictures()
    x[2, 0, 3, 3] = value
    return x
def nan(): return [(spoilt(float("nan")), torch.arange(4))]
def infinite(): return [(spoilt(float("inf")), torch.arange(4))]
def without_labels(): return [spoilt(float("nan"))]
def few(): return [(pictures(), torch.arange(3))]
def halved(): return [(pictures(), torch.arange(2))]
def many(): return [(pictures(), torch.arange(5))]
def fitting(): return [(pictures(), torch.arange(4))]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "own.py"
    path.write_text(DATA)
    return path


def test_integer_and_boolean_weights_are_named_where_they_are_left_alone(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    whole, switches = torch.ones(4, 4, dtype=torch.int8), torch.ones(4, 4, dtype=torch.bool)
    weights = {"a.weight": torch.randn(4, 4), "b.weight": whole, "c.weight": switches}
    save_file(weights, path)
    commands: list[list[Any]] = [
        ["inspect", path],
        ["score", path],
        ["check", path, "--max-sparsity", "0.5"],
        ["prune", path, "--sparsity", "0.5", "-o", tmp_path / "p.safetensors"],
    ]
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert "b.weight (int8), c.weight (bool)" in done.stderr, command


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64])
def test_a_network_of_integers_alone_is_refused_with_their_names_and_types(
    kind: torch.dtype, model_file: Path, run: Run, tmp_path: Path
) -> None:
    path, held = tmp_path / "m.safetensors", load_file(model_file)
    save_file({key: one.to(kind) if one.dim() > 1 else one for key, one in held.items()}, path)
    words = f"classifier.weight ({str(kind).removeprefix('torch.')})"
    assert_one_line(run("inspect", path), 3, "nothing to prune", words)


def test_a_running_variance_of_0_is_told(model_file: Path, run: Run, tmp_path: Path) -> None:
    path, held = tmp_path / "m.safetensors", load_file(model_file)
    name = "blocks.0.norm.running_var"
    held[name][:2] = 0
    save_file(held, path)
    done = run("inspect", path)
    assert done.returncode == 0
    assert f"variance 0, as of channels that never change: {name} (2 of 8)" in done.stderr
    assert "variance 0" not in run("inspect", model_file).stderr


@pytest.mark.many(2)
@pytest.mark.parametrize("name", ["nan", "infinite", "without_labels"])
@pytest.mark.parametrize("command", ["eval", "calibrate", "score", "check"])
def test_no_number_comes_of_images_that_are_not_finite(
    command: str, name: str, data: Path, model_file: Path, run: Run, tmp_path: Path
) -> None:
    flags: dict[str, list[Any]] = {
        "calibrate": ["-o", tmp_path / "c.safetensors"],
        "check": ["--max-dead", "100%"],
        "score": ["--criterion", "sf"],
    }
    done = run(command, model_file, "--data", f"{data}:{name}", *flags.get(command, []))
    assert_one_line(done, 3, "--data", "batch 1 has NaN or infinity in it")


@pytest.mark.many(2)
@pytest.mark.parametrize(("name", "count"), [("few", 3), ("many", 5)])
@pytest.mark.parametrize("command", ["eval", "diff", "score", "calibrate", "prune"])
def test_labels_that_are_not_as_many_as_the_images_are_at_fault_and_no_readout(
    command: str, name: str, count: int, data: Path, model_file: Path, run: Run, tmp_path: Path
) -> None:
    flags: dict[str, list[Any]] = {
        "diff": [model_file],
        "score": ["--criterion", "snip"],
        "calibrate": ["-o", tmp_path / "c.safetensors"],
        "prune": ["--sparsity", "0.5", "--repair", "bn", "-o", tmp_path / "p.safetensors"],
    }
    done = run(command, model_file, *flags.get(command, []), "--data", f"{data}:{name}")
    assert_one_line(done, 3, f"--data: a batch of shape (4, 1, 28, 28) with {count} labels")
    assert "--readout" not in done.stderr


def test_training_refuses_labels_that_are_not_as_many_as_the_images(
    data: Path, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    named = {"name": f"{data}:halved", "validation": 0}
    model = {"name": "conv-snn", "args": {"width": 4, "in_channels": 1, "size": 28, "classes": 10}}
    path.write_text(json.dumps({**SECTIONS, "model": model, "data": named}))
    done = run("train", "--recipe", path, "--trust-recipe", "--out", tmp_path / "run")
    assert_one_line(done, 3, "data.name: a batch of shape (4, 1, 28, 28) with 2 labels")


@pytest.mark.parametrize(
    ("gate", "weights", "zeros", "met"),
    [
        ("--min-sparsity=0.5", 1, 0, False),  # round(0.5) is 0
        ("--min-sparsity=0.1", 4, 0, False),
        ("--min-sparsity=0", 1, 0, True),
        ("--min-sparsity=0.5", 4, 2, True),
        ("--min-sparsity=0.9", 36, 32, True),  # as many as prune prunes
        ("--max-sparsity=0.6", 1, 1, False),
        ("--max-sparsity=0.99", 9, 9, False),
        ("--max-layer-sparsity=0.99", 9, 9, False),
        ("--max-layer-sparsity=0.99", 9, 8, True),
        ("--max-sparsity=1", 1, 1, True),
    ],
)
def test_a_gate_on_sparsity_is_met_by_no_rounding_to_none_or_all(
    gate: str, weights: int, zeros: int, met: bool, run: Run, tmp_path: Path
) -> None:
    path, weight = tmp_path / "m.safetensors", torch.ones(1, weights)
    weight[:, :zeros] = 0
    save_file({"a.weight": weight}, path)
    assert run("check", path, gate).returncode == (0 if met else 4)


@pytest.mark.parametrize(
    ("sparsity", "hint"),
    [
        ("95", "did you mean 0.95?"),
        ("100", "a share is written as 0.95, not 95"),
        ("1", "a share is written as 0.95, not 95"),
        ("1e9", "a share is written as 0.95, not 95"),
        ("90%", "did you mean 0.9?"),
        ("much", "a share is written as 0.95"),
    ],
)
def test_a_sparsity_that_is_no_share_has_a_hint_on_every_flag(
    sparsity: str, hint: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    assert_one_line(run("prune", model_file, "--sparsity", sparsity, "-o", out), 2, hint)
    if sparsity != "1":  # which is a limit
        assert_one_line(run("check", model_file, "--min-sparsity", sparsity), 2, hint[:20])


SECTIONS = {
    "data": {"name": "fashion-mnist-mini"},
    "training": {"epochs": 1, "learning_rate": 0.1},
}
WRONG: dict[str, list[Any]] = {
    "time_steps": [0, -1, 2.0, True],
    "width": [0],
    "depth": [0],
    "neuron.beta": [1.5],
    "neuron.reset": ["hrad"],
    "neuron.surrogate": ["step"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_recipe_with_an_argument_out_of_range_is_not_valid(
    name: str, value: Any, run: Run, tmp_path: Path
) -> None:
    outer, _, inner = name.partition(".")
    args = {outer: {inner: value} if inner else value}
    path = tmp_path / "r.yaml"
    model = {"name": "conv-snn", "args": args}
    path.write_text(json.dumps({"model": model, **SECTIONS}))
    assert_one_line(run("recipes", "validate", path), 3, f"model.args.{name}")


def test_a_recipe_with_an_argument_that_a_model_does_not_have_is_not_valid(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    model = {"name": "res-snn-19", "args": {"tiem_steps": 2}}
    path.write_text(json.dumps({"model": model, **SECTIONS}))
    assert_one_line(run("recipes", "validate", path), 3, "did you mean time_steps?")


def test_what_is_known_of_the_arguments_is_what_the_builders_take() -> None:
    import inspect
    from dataclasses import fields

    from snnprune.jobs.train.recipes import NeuronArguments
    from snnprune.models import MODELS
    from snnprune.models.lif import Dynamics

    assert set(ARGUMENTS) == set(MODELS.rows)
    for name, known in ARGUMENTS.items():
        taken = inspect.signature(MODELS.load(name, field="--model")).parameters
        assert set(known.model_fields) == set(taken)
    defaults = {field.name: field.default for field in fields(Dynamics)}
    assert NeuronArguments().model_dump() == defaults
    build_model(ModelSpec(name="conv-snn", args={"neuron": NeuronArguments().model_dump()}))
