"""Flags for a network of the user's own: how it is run and read, what is left alone."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from one_line import assert_one_line
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from snnprune.cli.options import expand_options
from snnprune.jobs.targets.options import TargetOptions

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]

OWN = """
import torch
from torch import nn

from snnprune.models.lif import Dynamics
from snnprune.models.lif import LIF


class StepByStep(nn.Module):
    '''One step of images (N, 1, 6, 6), told which; its state is the caller's business.'''

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.spikes = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), LIF(Dynamics())
        self.second, self.norm2 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.spikes2 = LIF(Dynamics())
        self.out = nn.Linear(16, 3)

    def forward(self, x, steps):
        x = self.norm(self.first(x)).expand(steps, -1, -1, -1, -1)
        x = self.spikes(x)
        x = self.norm2(self.second(x.flatten(0, 1))).unflatten(0, (steps, -1))
        return {"logits": self.out(self.spikes2(x).flatten(2))}


def build():
    return StepByStep()


def batches():
    drawn = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield torch.rand(8, 1, 6, 6, generator=drawn), torch.randint(3, (8,), generator=drawn)


def forward(model, x):
    assert isinstance(model, StepByStep)  # one file is one module
    return model(x, steps=5)


def forward_logits(model, x):
    return model(x, steps=5)["logits"]


def scores(output):
    return output["logits"].amax(0)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with `own.py` and a checkpoint of its network; the variables of `own.py`."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    scope: dict[str, Any] = {"__name__": "own"}
    exec(OWN, scope)
    torch.manual_seed(0)
    module = scope["build"]()
    torch.nn.init.constant_(module.norm.bias, 1.0)
    torch.nn.init.constant_(module.norm2.bias, 1.0)
    scope["module"] = module.eval()
    torch.save(module.state_dict(), "own.pth")
    return scope


FLAGS = ("own.pth", "--model", "own.py:build", "--data", "own.py:batches")


@pytest.mark.slow
def test_a_forward_function_runs_every_pass(own: dict[str, Any], run: Run) -> None:
    assert_one_line(run("score", *FLAGS), 3, "--model", "missing 1 required positional argument")
    forward = ("--forward", "own.py:forward_logits")
    for command in (
        ("inspect",),
        ("calibrate", "-o", "c.safetensors"),
        ("score", "--calibration", "c.safetensors"),
        ("prune", "--sparsity", 0.6, "--no-tune", "-o", "p.safetensors"),
        ("eval",),
    ):
        done = run(command[0], *FLAGS, *command[1:], *forward)
        assert done.returncode == 0, done.stderr
    found = json.loads(Path("p.report.json").read_text())
    assert (found["criterion"], found["repair"]) == ("magnitude", "obs")
    assert found["model"]["forward"] == "own.py:forward_logits"


@torch.no_grad()
def test_a_readout_function_gives_the_scores_that_are_evaluated(
    own: dict[str, Any], run: Run, as_json: Json
) -> None:
    flags = (*FLAGS, "--forward", "own.py:forward")
    refused = run("eval", *flags)
    assert_one_line(refused, 3, "puts out a dict of logits for 8 samples", "file.py:function")
    found = as_json(run("eval", *flags, "--readout", "own.py:scores", "--json"))["evaluation"]
    correct, loss = 0, 0.0
    for x, y in own["batches"]():
        logits = own["module"](x, 5)["logits"].amax(0)
        correct += int((logits.argmax(1) == y).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
    assert found["correct"] == correct
    assert found["loss_sum"] == pytest.approx(loss)
    assert found["readout"] == "own.py:scores"


@torch.no_grad()
def test_a_named_readout_is_used_before_and_after_pruning(
    own: dict[str, Any], run: Run, as_json: Json
) -> None:
    moved = [(x.roll(1, -1), y) for x, y in own["batches"]()]
    others = {"x": torch.cat([x for x, _ in moved]), "y": torch.cat([y for _, y in moved])}
    save_file(others, "others.safetensors")
    named = ("--forward", "own.py:forward_logits", "--eval-data", "tensors:others.safetensors")
    flags = (*FLAGS, *named, "--readout", "last", "--json")
    found = as_json(
        run("prune", *flags, "--sparsity", 0, "-o", "p.safetensors", "--repair", "none")
    )
    correct = sum(int((own["module"](x, 5)["logits"][-1].argmax(1) == y).sum()) for x, y in moved)
    assert found["before"]["correct"] == found["after"]["correct"] == correct
    assert found["before"]["readout"] == "last"


def test_a_calibration_of_another_way_to_run_is_refused(own: dict[str, Any], run: Run) -> None:
    made = run("calibrate", *FLAGS, "-o", "c.safetensors", "--forward", "own.py:forward")
    assert made.returncode == 0, made.stderr
    flags = ("--calibration", "c.safetensors", "--forward", "own.py:forward_logits")
    assert_one_line(run("score", *FLAGS, *flags), 3, "was not taken on own.pth")


def test_a_file_cannot_name_a_forward_function(run: Run, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(proof)!r}, 'w')\ndef forward(model, x): ...\n")
    note = json.dumps({"name": "conv-snn", "args": {}, "forward": f"{code}:forward"})
    metadata = {"snnprune.model": note, "snnprune.forward": f"{code}:forward"}
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "m.safetensors", metadata=metadata)
    assert run("inspect", tmp_path / "m.safetensors").returncode == 3  # does not fit the model
    assert not proof.exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--readout", "men"], 2, "unknown readout 'men'. did you mean mean?"),
        (["--readout", "own.py:nothing"], 3, "has no 'nothing'"),
        (["--forward", "forward"], 2, "unknown way to run 'forward'. choose from file.py:function"),
        (["--forward", "step"], 2, "unknown way to run 'step'. did you mean steps?"),
        (["--forward", "own.py"], 2, "name the function too: own.py:FUNCTION"),
        (["--forward", "repeat:"], 2, "'repeat:' has no number of time steps"),
        (["--forward", "repeat:0"], 2, "'repeat:0' has no number of time steps"),
        (["--forward", "repeat:two"], 2, "write it as repeat:4"),
        (["--forward", "nowhere.py:forward"], 3, "no such file"),
        (["--forward", "own.py:OWN"], 3, "has no 'OWN'"),
        (["--link", "a.weight"], 2, "'a.weight' is not of the form WEIGHT=NEURON"),
        (["--link", "=lif"], 2, "is not of the form"),
        (["--link", "a=b", "--link", "a=c"], 2, "a is given b and c"),
        (["--exclude", "nothing*"], 3, "'nothing*' fits no prunable weight. there are first.wei"),
        (["--exclude", "*"], 3, "leaves nothing to prune"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(
    flags: list[str], code: int, words: str, own: dict[str, Any], run: Run
) -> None:
    common = () if "--forward" in flags else ("--forward", "own.py:forward")
    done = run("eval", *FLAGS, *common, *flags)
    assert_one_line(done, code, flags[0], words)


def test_an_excluded_layer_is_left_as_it_is_and_not_counted(
    own: dict[str, Any], run: Run, as_json: Json
) -> None:
    before = torch.load("own.pth")
    flags = (*FLAGS, "--forward", "own.py:forward_logits", "--exclude", "out", "--exclude", "fir*")
    common = ("--sparsity", "0.75", "-o", "p.safetensors", "--repair", "none")
    done = run("prune", *flags, *common)
    assert done.returncode == 0, done.stderr
    assert "left alone: first, out" in done.stdout
    after = load_file("p.safetensors")
    for key in before:
        assert torch.equal(before[key], after[key]) == (key != "second.weight")
    assert int((after["second.weight"] == 0).sum()) == 108  # 75 % of 4 x 4 x 3 x 3
    found = json.loads(Path("p.report.json").read_text())
    assert found["totals"]["prunable"] == 144
    assert found["excluded"] == ["first.weight", "out.weight"]
    assert "first.weight" not in load_file("p.mask.safetensors")


def test_an_exclusion_is_known_without_the_network_too(own: dict[str, Any], run: Run) -> None:
    done = run("inspect", "own.pth", "--exclude", "second.weight")
    assert "of 84 prunable weights" in done.stdout  # 4 x 9 + 16 x 3
    assert "left alone: second" in done.stdout


def test_one_state_dict_of_several_is_read(own: dict[str, Any], run: Run) -> None:
    weights = torch.load("own.pth")
    averaged = {key: value.float() + 1 for key, value in weights.items()}
    torch.save({"model": weights, "model_ema": averaged}, "two.pth")
    flags = ("--sparsity", "0", "-o", "p.safetensors", "--state-dict", "model_ema")
    done = run("prune", "two.pth", *flags)
    assert done.returncode == 0, done.stderr
    assert torch.equal(load_file("p.safetensors")["out.weight"], averaged["out.weight"])
    assert_one_line(run("inspect", "two.pth", "--state-dict", "ema"), 3, "--state-dict")


def test_links_are_carried_to_where_the_network_is_traced(own: dict[str, Any]) -> None:
    asked: list[TargetOptions] = []
    app = typer.Typer()

    @app.command()
    @expand_options
    def take(target: TargetOptions) -> None:
        asked.append(target)

    links = ("--link", "a.weight=lif", "--link", "b.weight=none")
    assert CliRunner().invoke(app, ["own.pth", *links]).exit_code == 0
    assert asked[0].links == {"a.weight": "lif", "b.weight": "none"}


def test_weights_that_are_no_numbers_are_pruned_first_and_told(
    own: dict[str, Any], run: Run
) -> None:
    tensors = torch.load("own.pth")
    tensors["second.weight"].view(-1)[:5] = math.nan
    tensors["out.weight"].view(-1)[3] = math.inf
    torch.save(tensors, "bad.pth")
    common = ("--sparsity", "0.1", "-o", "p.safetensors")
    assert_one_line(run("prune", "bad.pth", *common), 3, "5 values NaN or infinite")
    for flags in ((), (*FLAGS[1:], "--forward", "own.py:forward_logits")):
        done = run("prune", "bad.pth", *common, "--allow-nonfinite", "--force", *flags)
        assert done.returncode == 0, done.stderr
        assert "6 weights that are NaN or infinite are taken for pruned" in done.stderr
        after = load_file("p.safetensors")
        assert not after["second.weight"].view(-1)[:5].any()
        assert not after["out.weight"].view(-1)[3]
        zeros = sum(int((after[f"{key}.weight"] == 0).sum()) for key in ("first", "second", "out"))
        assert zeros == 23  # 10 % of 228


def test_what_is_no_number_outside_the_weights_stays_and_a_variance_is_refused(
    own: dict[str, Any], run: Run
) -> None:
    tensors = torch.load("own.pth")
    tensors["out.bias"][0] = math.nan
    torch.save(tensors, "bad.pth")
    flags = ("--sparsity", "0.5", "-o", "p.safetensors", "--allow-nonfinite")
    done = run("prune", "bad.pth", *flags)
    assert done.returncode == 0, done.stderr
    assert "out.bias: 1 value NaN" in done.stderr
    assert bool(load_file("p.safetensors")["out.bias"][0].isnan())
    tensors["norm.running_var"][1] = math.nan
    torch.save(tensors, "bad.pth")
    assert_one_line(run("prune", "bad.pth", *flags, "--force"), 3, "norm.running_var")


def test_a_membrane_that_is_no_number_is_no_fault_of_the_users_function(
    own: dict[str, Any], run: Run
) -> None:
    tensors = torch.load("own.pth")
    tensors["norm.bias"][0] = math.nan
    torch.save(tensors, "own.pth")
    flags = ("--forward", "own.py:forward", "--allow-nonfinite", "-o", "c.safetensors")
    assert_one_line(run("calibrate", *FLAGS, *flags), 6, "spikes: membrane potential is not finite")


def test_inspect_shows_what_is_between_a_layer_and_its_neuron(
    own: dict[str, Any], run: Run, as_json: Json
) -> None:
    flags = ("--forward", "own.py:forward")
    done = run("inspect", *FLAGS, *flags)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["first", "input", "norm", "spikes", "-"] in lines
    assert ["second", "spikes", "norm2", "spikes2", "-"] in lines
    assert ["spikes2", "snnprune", "5", "-"] in lines
    (layer, *_) = as_json(run("inspect", *FLAGS, *flags, "--json"))["layers"]
    assert layer["links"] == [{"neuron": "spikes", "norms": [["norm"]], "through": []}]
    assert layer["encoding"] is True


def test_a_pattern_may_name_a_weight_as_the_file_does(own: dict[str, Any], run: Run) -> None:
    parallel = {f"module.{key}": value for key, value in torch.load("own.pth").items()}
    torch.save(parallel, "parallel.pth")
    done = run("inspect", "parallel.pth", "--exclude", "module.out")
    assert done.returncode == 0, done.stderr
    assert "left alone: out" in done.stdout


TERNARY = """
import torch
from spikingjelly.activation_based import neuron
from torch import nn


class Ternary(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.spikes, self.out = neuron.TernaryIFNode(), nn.Linear(64, 3)
        self.inner, self.inner_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.inner_spikes = neuron.IFNode()

    def forward(self, x):
        steps = []
        for _ in range(3):
            y = self.inner_spikes(self.inner_norm(self.inner(self.spikes(self.norm(self.conv(x))))))
            steps.append(self.out(y.flatten(1)))
        return torch.stack(steps)


def build():
    torch.manual_seed(0)
    net = Ternary()
    nn.init.constant_(net.norm.bias, 1.5)
    return net


def batches():
    return [(torch.rand(8, 1, 6, 6), torch.zeros(8, dtype=torch.int64))]
"""


def test_strict_refuses_a_neuron_that_cannot_be_explained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ternary.py").write_text(TERNARY)
    scope: dict[str, Any] = {"__name__": "ternary"}
    exec(TERNARY, scope)
    torch.save(scope["build"]().state_dict(), "t.pth")
    flags = ("t.pth", "--model", "ternary.py:build", "--data", "ternary.py:batches")
    lax = run("calibrate", *flags, "-o", "c.safetensors")
    assert lax.returncode == 0, lax.stderr
    assert "do not follow" in lax.stderr
    words = ("--strict", "1 of 3 layers", "conv.weight: spikes: its spikes do not follow")
    for command in (
        ("calibrate", "-o", "d.safetensors"),
        ("score",),
        ("score", "--calibration", "c.safetensors"),
        ("prune", "--sparsity", "0.5", "-o", "p.safetensors"),
    ):
        assert_one_line(run(command[0], *flags, *command[1:], "--strict"), 3, *words)
    assert not Path("d.safetensors").exists()
    assert not Path("p.safetensors").exists()
    done = run("score", *flags, "--strict", "--exclude", "conv")
    assert done.returncode == 0, done.stderr
