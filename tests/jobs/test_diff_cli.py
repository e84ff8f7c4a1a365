"""`snnprune diff`: what changed between two checkpoints of one network."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from two_checkpoints import DATA, halved, lay_out, module, write

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
Json = Callable[[Done], Any]
PAIR = ("diff", "a.safetensors", "b.safetensors")


@pytest.fixture
def tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The tensors of a.safetensors, in the current folder beside b.safetensors and images."""
    monkeypatch.chdir(tmp_path)
    return lay_out()


@torch.no_grad()
def classes(held: dict[str, Tensor]) -> Tensor:
    """What a network with these tensors answers to all images."""
    built = module()
    built.load_state_dict(held)
    scores: Tensor = built(load_file("images.safetensors")["x"]).sum(0)
    return scores.argmax(1)


def test_weights_spikes_and_answers_are_counted(
    tensors: dict[str, Tensor], run: Run, as_json: Json
) -> None:
    done = run(*PAIR, *DATA, "--json")
    assert done.returncode == 0, done.stderr
    report = as_json(done)
    layers = {layer["key"]: layer for layer in report["layers"]}
    weights = {key: value for key, value in tensors.items() if value.dim() > 1}
    assert layers.keys() == weights.keys()
    for key, weight in weights.items():
        gone = weight.flatten()[::2]
        assert layers[key]["zeros_first"] == 0
        assert layers[key]["zeros_other"] == layers[key]["changed"] == len(gone)
        assert layers[key]["relative_change"] == pytest.approx(float(gone.norm() / weight.norm()))
        assert layers[key]["overlap"] == (weight.numel() - len(gone)) / weight.numel()
    assert report["totals"]["values"] == sum(weight.numel() for weight in weights.values())
    assert report["others"] == []
    a, b = classes(tensors), classes(halved(tensors))
    y = load_file("images.safetensors")["y"]
    found = report["agreement"]
    assert found["outputs"]["same_class"] == int((a == b).sum())
    assert found["answers"]["only_first"] == int(((a == y) & (b != y)).sum())
    assert found["answers"]["both"] == int(((a == y) & (b == y)).sum())
    assert list(found["neurons"]) == ["encoder.neuron", "blocks.0.neuron"]
    assert [len(one["same"]) for one in found["neurons"].values()] == [3, 3]
    assert [entry["path"] for entry in report["inputs"]] == ["a.safetensors", "b.safetensors"]


def test_tables_fit_and_steps_are_shown_with_v(tensors: dict[str, Tensor], run: Run) -> None:
    plain, verbose = run(*PAIR, *DATA), run(*PAIR, *DATA, "-v")
    assert plain.returncode == verbose.returncode == 0
    assert "same at step" not in plain.stdout
    assert "same at step" in verbose.stdout
    assert all(len(line) <= 80 for line in verbose.stdout.splitlines())
    assert "zeros: 0 in A, " in plain.stdout
    quiet = run(*PAIR, *DATA, "-q").stdout
    assert "encoder" not in quiet
    assert "accuracy" in quiet


def test_one_file_agrees_with_itself(tensors: dict[str, Tensor], run: Run) -> None:
    done = run("diff", "a.safetensors", "a.safetensors", *DATA)
    assert "changed 0 of" in done.stdout
    assert "spikes: 100.00% the same" in done.stdout
    assert "same class 100.00%, difference 0, cosine 1.0000, divergence 0" in done.stdout


def test_other_tensors_that_changed_are_named(tensors: dict[str, Tensor], run: Run) -> None:
    shifted = {**tensors, "encoder.norm.running_mean": tensors["encoder.norm.running_mean"] + 1}
    write(Path("b.safetensors"), shifted)
    done = run(*PAIR, *DATA)
    assert "encoder.norm.running_mean" in done.stdout
    assert "encoder.norm.running_var" not in done.stdout
    assert "changed 0 of" in done.stdout


def test_files_alone_are_compared_by_their_tensors(
    tensors: dict[str, Tensor], run: Run, as_json: Json
) -> None:
    save_file(tensors, "bare.safetensors")
    wrapped = {f"module.{key}": value for key, value in halved(tensors).items()}
    torch.save({"state_dict": wrapped}, "wrapped.pth")
    done = run("diff", "bare.safetensors", "wrapped.pth")
    assert done.returncode == 0, done.stderr
    assert "spikes and outputs not compared: the file does not say which model" in done.stdout
    with_network = as_json(run(*PAIR, *DATA, "--json"))
    alone = as_json(run("diff", "bare.safetensors", "wrapped.pth", "--json"))
    assert alone["totals"] == with_network["totals"]
    assert alone["agreement"] is None


@pytest.mark.parametrize("name", ["a.safetensors", "bare.safetensors"])
def test_another_architecture_is_refused_in_a_line_that_names_differences(
    name: str, tensors: dict[str, Tensor], run: Run
) -> None:
    save_file(tensors, "bare.safetensors")
    other = {key: value for key, value in tensors.items() if not key.startswith("classifier")}
    save_file({**other, "fc.weight": torch.ones(3, 8)}, "other.safetensors")
    done = run("diff", name, "other.safetensors", *(DATA if name == "a.safetensors" else ()))
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert f"other.safetensors: is no checkpoint of the same network as {name}" in line
    assert "2 missing: classifier." in line
    assert "1 unexpected: fc.weight" in line


def test_another_shape_is_refused(tensors: dict[str, Tensor], run: Run) -> None:
    save_file({**tensors, "classifier.bias": torch.ones(5)}, "other.safetensors")
    done = run("diff", "a.safetensors", "other.safetensors", *DATA)
    assert done.returncode == 3
    assert "1 of another shape: classifier.bias (5,) for (3,)" in done.stderr


def test_what_cannot_be_run_is_refused_before(tensors: dict[str, Tensor], run: Run) -> None:
    missing = run("diff", "a.safetensors", "c.safetensors")
    assert (missing.returncode, "c.safetensors: no such file" in missing.stderr) == (3, True)
    wrong = run(*PAIR, "--split", "tests")
    assert (wrong.returncode, "unknown split 'tests'" in wrong.stderr) == (2, True)
    save_file(tensors, "bare.safetensors")
    no_model = run("diff", "bare.safetensors", "b.safetensors", *DATA)
    assert no_model.returncode == 3


def test_images_without_labels_give_no_accuracy(
    tensors: dict[str, Tensor], run: Run, as_json: Json
) -> None:
    x = load_file("images.safetensors")["x"]
    save_file({"x": x}, "images.safetensors")
    assert "20 given samples without labels" in run(*PAIR, *DATA, "--samples", 20).stdout
    report = as_json(run(*PAIR, *DATA, "--samples", 20, "--json"))
    assert report["agreement"]["samples"] == 20
    assert report["agreement"]["answers"] is None


OWN = """
import torch
from torch import nn

from snnprune.models.lif import Dynamics
from snnprune.models.lif import LIF


class A(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.spikes, self.out = nn.Linear(6, 5), LIF(Dynamics()), nn.Linear(5, 2)

    def forward(self, x, steps):
        return {"logits": self.out(self.spikes(self.fc(x).expand(steps, -1, -1)))}


def forward(model, x):
    return model(x, 4)


def scores(output):
    return output["logits"].mean(0)


def batches():
    for seed in range(2):
        yield 4 * torch.rand(5, 6, generator=torch.Generator().manual_seed(seed))
"""


def test_a_network_of_the_user_s_own_is_run_as_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, as_json: Json
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    torch.manual_seed(0)
    scope: dict[str, Any] = {"__name__": "own"}
    exec(OWN, scope)
    for name in "ab":
        torch.save(scope["A"]().state_dict(), f"{name}.pth")
    flags = ("--model", "own.py:A", "--data", "own.py:batches", "--forward", "own.py:forward")
    done = run("diff", "a.pth", "b.pth", *flags, "--readout", "own.py:scores", "--json")
    assert done.returncode == 0, done.stderr
    found = as_json(done)["agreement"]
    assert found["samples"] == 10
    assert found["neurons"]["spikes"]["places"] == [50] * 4
    assert 0 < found["neurons"]["spikes"]["agreement"] < 1
