"""What is easy to get wrong: prefixes, ties, half precision, splits, merged arguments."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]
QUICK = ("--no-eval", "--samples", "8", "--criterion", "sf")
SMOKE = {"in_channels": 1, "size": 28, "classes": 10, "width": 4, "depth": 2, "time_steps": 2}


def metadata(args: dict[str, Any]) -> dict[str, str]:
    return {
        "snnprune.model": json.dumps({"name": "conv-snn", "args": args}),
        "snnprune.data": json.dumps({"name": "fashion-mnist-mini"}),
    }


def test_a_data_parallel_checkpoint_keeps_its_prefix(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    parallel, out = tmp_path / "parallel.safetensors", tmp_path / "p.safetensors"
    tensors = {f"module.{key}": value for key, value in load_file(model_file).items()}
    save_file(tensors, parallel, metadata=metadata(SMOKE))
    done = run("prune", parallel, "--sparsity", "0.5", "-o", out, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "stripped the prefix module." in done.stderr
    assert load_file(out).keys() == tensors.keys()
    assert "module.classifier.weight" in load_file(tmp_path / "p.mask.safetensors")


TIED = """
import torch
from torch import nn
from snnprune.models.lif import Dynamics
from snnprune.models.lif import LIF


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(784, 784), nn.Linear(784, 784)
        self.b.weight = self.a.weight
        self.spikes = LIF(Dynamics())

    def forward(self, x):
        spikes = self.spikes(self.a(x.flatten(1)).expand(2, -1, -1))
        return self.b(spikes)


def build():
    torch.manual_seed(0)
    return Tied()
"""


def test_a_weight_with_two_names_is_pruned_under_both(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tied.py"
    file.write_text(TIED)
    scope: dict[str, Any] = {}
    exec(TIED, scope)
    torch.save(scope["build"]().state_dict(), tmp_path / "tied.pth")
    out = tmp_path / "p.safetensors"
    flags = ("--model", f"{file}:build", "--data", "fashion-mnist-mini")
    done = run("prune", tmp_path / "tied.pth", "--sparsity", "0.5", "-o", out, *QUICK, *flags)
    assert done.returncode == 0, done.stderr
    module = scope["build"]()
    module.load_state_dict(load_file(out))
    assert int((module.a.weight == 0).sum()) == 784 * 784 // 2
    assert module.a.weight is module.b.weight


def test_the_accuracy_after_is_of_the_written_file_also_in_half_precision(
    model_file: Path, run: Run, as_json: Json, tmp_path: Path
) -> None:
    half, out = tmp_path / "half.safetensors", tmp_path / "p.safetensors"
    tensors = load_file(model_file)
    floats = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(floats, half, metadata=metadata(SMOKE))
    done = run("prune", half, "--sparsity", "0.8", "-o", out, "--criterion", "sf", "--json")
    assert done.returncode == 0, done.stderr
    assert {v.dtype for v in load_file(out).values()} == {torch.float16, torch.int64}
    measured = as_json(run("eval", out, "--json"))["evaluation"]
    assert as_json(done)["after"]["loss_sum"] == measured["loss_sum"]


def test_a_limited_evaluation_is_a_sample_over_all_classes(model_file: Path) -> None:
    target = open_target(TargetOptions(checkpoint=model_file))
    (x, y), *rest = target.batches("test", 50)
    first = next(iter(target.batches("test")))[0]
    assert not rest
    assert y is not None
    assert len(x) == 50
    assert not torch.equal(x, first[:50])
    again = next(iter(target.batches("test", 50)))[0]
    assert torch.equal(x, again)


def test_no_batch_of_one_image_reaches_a_batchnorm(model_file: Path) -> None:
    target = open_target(TargetOptions(checkpoint=model_file, samples=33, batch_size=16))
    assert [len(x) for x, _ in target.calibration_batches()] == [16, 16]
    assert target.calibration_batches().count == 2


def test_a_model_argument_is_laid_over_those_of_the_file_setting_by_setting(
    model_file: Path, tmp_path: Path
) -> None:
    args = {**SMOKE, "neuron": {"beta": 0.75, "threshold": 0.9}}
    path = tmp_path / "m.safetensors"
    save_file(load_file(model_file), path, metadata=metadata(args))
    target = open_target(
        TargetOptions(checkpoint=path, model_args={"neuron": {"beta": 0.25}, "time_steps": 3})
    )
    assert target.spec is not None
    assert target.spec.args["neuron"] == {"beta": 0.25, "threshold": 0.9}
    assert (target.spec.args["time_steps"], target.spec.args["width"]) == (3, 4)


def test_the_training_split_of_the_users_own_data_is_remembered(
    model_file: Path, tmp_path: Path
) -> None:
    data = f"tensors:{tmp_path / 'x.safetensors'}"
    save_file({"x": torch.zeros(40, 1, 28, 28), "y": torch.zeros(40, dtype=torch.int64)},
              tmp_path / "x.safetensors")  # fmt: skip
    path = tmp_path / "m.safetensors"
    note = {"snnprune.data": json.dumps({"name": data, "validation": 0.25, "seed": 3})}
    save_file(load_file(model_file), path, metadata={**metadata(SMOKE), **note})
    target = open_target(TargetOptions(checkpoint=path, data=data))
    assert sum(len(x) for x, _ in target.batches("train")) == 30
    assert sum(len(x) for x, _ in target.batches("validation")) == 10
    assert open_target(TargetOptions(checkpoint=path)).data is None  # a file may not choose it


def test_a_calibration_of_another_threshold_is_refused(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration = tmp_path / "c.safetensors"
    assert run("calibrate", model_file, "-o", calibration, "--samples", "8").returncode == 0
    flags = ("--calibration", calibration, "--model-arg", "neuron.threshold=3.0")
    done = run("score", model_file, *flags)
    assert done.returncode == 3
    assert "and its model as they are now" in done.stderr


def test_a_calibration_stands_in_for_data_that_are_not_there(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration, path = tmp_path / "c.safetensors", tmp_path / "m.safetensors"
    note = {"snnprune.data": json.dumps({"name": "mnist"})}
    save_file(load_file(model_file), path, metadata={**metadata(SMOKE), **note})
    flags = ("--data-root", tmp_path)
    done = run("score", path, *flags)
    assert "criterion magnitude (mnist, which it was trained on, is not here" in done.stdout
    taken = run(
        "calibrate", path, "-o", calibration, "--samples", "8", "--data", "fashion-mnist-mini"
    )
    assert taken.returncode == 0, taken.stderr
    done = run("score", path, *flags, "--calibration", calibration)
    assert "criterion sf (the network and its calibration are at hand)" in done.stdout


@pytest.mark.parametrize("command", ["score", "prune"])
def test_a_calibration_is_never_the_output(
    command: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration = tmp_path / "c.safetensors"
    assert run("calibrate", model_file, "-o", calibration, "--samples", "8").returncode == 0
    before = calibration.read_bytes()
    flags = ["--calibration", calibration, "-o", calibration, "--force"]
    flags += ["--sparsity", "0.5"] if command == "prune" else []
    done = run(command, model_file, *flags)
    assert done.returncode == 5
    assert calibration.read_bytes() == before


@pytest.mark.slow
def test_a_network_that_puts_out_nan_ends_with_its_own_code_and_no_file(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    path, out = tmp_path / "m.safetensors", tmp_path / "p.safetensors"
    tensors = load_file(model_file)
    tensors["classifier.weight"].fill_(3e38)
    save_file(tensors, path, metadata=metadata(SMOKE))
    done = run("prune", path, "--sparsity", "0.1", "-o", out, "--samples", "8")
    assert done.returncode == 6, done.stderr
    assert "NaN or infinity" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "note",
    [
        {"snnprune.model": '{"name": []}'},
        {"snnprune.data": '{"name": {}, "seed": 1}'},
        {"snnprune.model": "[" * 50_000},
        {"snnprune.model": '{"name": "conv-snn", "args": {"size": "x"}}'},
    ],
)
def test_hostile_metadata_is_not_believed(note: dict[str, str], run: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a.weight": torch.ones(2, 2)}, path, metadata=note)
    assert run("inspect", path).returncode == 0


def test_a_weight_without_elements_is_left_out(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a.weight": torch.ones(0, 3), "b.weight": torch.ones(2, 2)}, path)
    done = run("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "0 of 4 weights" in done.stdout


def test_a_builders_defaults_are_enough_to_see_the_links(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(load_file(model_file), bare)
    flags = ("--model-arg", "width=4", "--model-arg", "depth=2")
    done = run("inspect", bare, "--model", "conv-snn", *flags)
    assert "blocks.0.neuron" in done.stdout


SPIKINGJELLY = """
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        lif = neuron.LIFNode(surrogate_function=surrogate.ATan())
        self.body = nn.Sequential(
            layer.Conv2d(1, 4, 3, stride=2, bias=False), layer.BatchNorm2d(4), lif,
            layer.Flatten(), layer.Linear(4 * 169, 10),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.body(x.expand(2, *x.shape))


def build():
    return Net()
"""


@pytest.mark.slow
def test_a_recipe_trains_a_spikingjelly_network_whose_state_is_reset(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "sj.py"
    file.write_text(SPIKINGJELLY)
    flags = ("--set", f"model={{name: '{file}:build'}}", "--out", tmp_path / "run")
    done = run("train", "--recipe", "smoke", *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["test"]["accuracy"] > 0.4
