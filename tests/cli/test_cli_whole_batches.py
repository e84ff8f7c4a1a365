"""Batches of other kinds than (x, y), as loaders give them, for a function that runs them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file

from snnprune.models import ModelSpec, build_model
from snnprune.recipe.schema import Recipe
from snnprune.training.setup import open_recipe_data
from snnprune.training.train import train

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]

GLUE = """
import torch
from torch import nn


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u * u)


class Net(nn.Module):
    '''Events (T, N, 12) to logits (T, N, 3).'''

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(12, 10), nn.BatchNorm1d(10), nn.Linear(10, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, events):
        logits, u, v = [], 0.0, 0.0
        for x in events:
            u = 0.5 * u + self.norm(self.first(x))
            s = Fire.apply(u - 0.5)
            u = u * (1 - s)
            v = 0.5 * v + self.second(s)
            z = Fire.apply(v - 0.2)
            v = v * (1 - z)
            logits.append(self.out(z))
        return torch.stack(logits)


def build():
    return Net()


def parts():
    drawn = torch.Generator().manual_seed(0)
    for count in (6, 6, 5):
        x = (torch.rand(4, count, 12, generator=drawn) > 0.4).float()
        lengths = torch.randint(2, 5, (count,), generator=drawn)
        yield x, torch.arange(count) % 3, lengths


def masked(x, lengths):
    return x * (torch.arange(len(x))[:, None] < lengths)[..., None]


def plain():
    return [(masked(x, lengths), y) for x, y, lengths in parts()]


def dicts():
    return [{"events": x, "label": y, "lengths": n, "id": "a"} for x, y, n in parts()]


def tuples():
    return [(x, y, n) for x, y, n in parts()]


def nested():
    return [((x, {"lengths": n}), y) for x, y, n in parts()]


def unlabelled():
    return [{"events": x, "lengths": n} for x, _, n in parts()]


def uncounted():
    return [{"events": x, "mask": masked(torch.ones_like(x), n)[..., 0].T} for x, _, n in parts()]


def batch_first():
    return [{"events": x.transpose(0, 1), "y": y, "lengths": n} for x, y, n in parts()]


def rising():
    return [(x, y.float(), n) for x, y, n in parts()]


def run_dict(model, batch):
    batch["events"].clamp_(max=1)  # in place, as some do
    return model(masked(batch["events"], batch["lengths"]))


def run_tuple(model, batch):
    x, _, lengths = batch
    return model(masked(x, lengths))


def run_nested(model, batch):
    (x, more), _ = batch
    return model(masked(x, more["lengths"]))


def run_mask(model, batch):
    return model(batch["events"] * batch["mask"].T[..., None])


def summed_mask(model, batch):
    return run_mask(model, batch).sum(0)


def in_a_dict(model, batch):
    return {"logits": run_mask(model, batch)}


def pictures():
    return [torch.zeros(4, 1, 28, 28)]


def captioned():
    return [{"picture": x, "number": torch.arange(len(x))} for x in pictures()]


def picture_of(model, batch):
    assert batch["number"].tolist() == [0, 1, 2, 3]
    return model(batch["picture"])


def run_batch_first(model, batch):
    return model(masked(batch["events"].transpose(0, 1), batch["lengths"])).transpose(0, 1)
"""


@pytest.fixture
def glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `glue.py`, `net.pth` and a changed `other.pth`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("glue.py").write_text(GLUE)
    scope: dict[str, Any] = {"__name__": "glue"}
    exec(GLUE, scope)
    torch.manual_seed(0)
    state = scope["build"]().state_dict()
    state["norm.bias"] += 0.5
    torch.save(state, "net.pth")
    torch.save({k: v * 1.1 if k == "second.weight" else v for k, v in state.items()}, "other.pth")
    return tmp_path


def flags(data: str, forward: str | None) -> tuple[str, ...]:
    named = () if forward is None else ("--forward", f"glue.py:{forward}")
    return ("--model", "glue.py:build", "--data", f"glue.py:{data}", *named)


PLAIN = flags("plain", None)
KINDS = {
    "dict": flags("dicts", "run_dict"),
    "tuple": flags("tuples", "run_tuple"),
    "nested": flags("nested", "run_nested"),
    "batch first": flags("batch_first", "run_batch_first"),
}


@pytest.mark.many(1)
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_is_that_of_the_plain_data(
    kind: str, glue: Path, run: Run, as_json: Json
) -> None:
    found, wanted = (
        as_json(run("eval", "net.pth", *how, "--json"))["evaluation"]
        for how in (KINDS[kind], PLAIN)
    )
    assert found == wanted
    assert (found["labelled"], found["time_steps"]) == (17, 4)
    links, same = (
        as_json(run("inspect", "net.pth", *how, "--json")) for how in (KINDS[kind], PLAIN)
    )
    assert (links["layers"], links["neurons"]) == (same["layers"], same["neurons"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dict", "nested"])
def test_scores_and_statistics_are_those_of_the_plain_data(
    kind: str, glue: Path, run: Run, as_json: Json
) -> None:
    found = {}
    for how in (KINDS[kind], PLAIN):
        for criterion in ("sf", "sf-obs", "taylor"):
            out = ("-o", "s.safetensors", "--force", "--criterion", criterion)
            done = run("score", "net.pth", *how, *out)
            assert done.returncode == 0, done.stderr
            found[how, criterion] = load_file("s.safetensors")
        done = run("calibrate", "net.pth", *how, "-o", "c.safetensors", "--force")
        assert done.returncode == 0, done.stderr
        found[how, "statistics"] = load_file("c.safetensors")
    for (how, what), tensors in found.items():
        for key, wanted in found[PLAIN, what].items():
            assert torch.equal(tensors[key], wanted), (how, what, key)


@pytest.mark.slow
@pytest.mark.parametrize("repair", ["bn", "mean", "lsq", "obs"])
def test_every_repair_does_what_it_does_on_the_plain_data(
    repair: str, glue: Path, run: Run
) -> None:
    made = []
    for how in (KINDS["dict"], KINDS["nested"], PLAIN):
        common = ("--sparsity", "0.5", "-o", "p.pth", "--force", "--repair", repair)
        done = run("prune", "net.pth", *how, *common)
        assert done.returncode == 0, done.stderr
        made.append(torch.load("p.pth"))
    for found in made[:-1]:
        assert all(torch.equal(found[key], value) for key, value in made[-1].items())


@pytest.mark.slow
def test_tuning_takes_a_batch_as_it_is(glue: Path, run: Run) -> None:
    common = ("--sparsity", "0.5", "-o", "p.pth", "--repair", "obs+tune", "--steps", "2")
    done = run("prune", "net.pth", *KINDS["dict"], *common, "--tune-steps", "40")
    assert done.returncode == 0, done.stderr
    before, after = torch.load("net.pth"), torch.load("p.pth")
    assert (after["second.weight"] == 0).any()
    assert not torch.equal(before["out.bias"], after["out.bias"])


@pytest.mark.slow
def test_two_networks_and_each_layer_are_compared_on_them(
    glue: Path, run: Run, as_json: Json
) -> None:
    for command in (("diff", "net.pth", "other.pth"), ("sensitivity", "net.pth")):
        found, wanted = (as_json(run(*command, *how, "--json")) for how in (KINDS["dict"], PLAIN))
        for report in (found, wanted):
            for name in ("model", "data", "command_line", "cost", "outputs"):
                report.pop(name, None)
        assert found == wanted


@pytest.mark.slow
def test_what_is_measured_of_a_theory_is_that_of_the_plain_data(
    glue: Path, run: Run, as_json: Json
) -> None:
    found, wanted = (
        as_json(run("analyze", "quantize", "net.pth", *how, "--bits", "3", "--json"))["levels"]
        for how in (KINDS["dict"], PLAIN)
    )
    assert found == wanted
    done = run("analyze", "noise", "net.pth", *KINDS["dict"], "--kind", "delete", "--level", "0.1")
    assert_one_line(done, 3, "--data: noise is for batches that are one tensor")


@pytest.mark.slow
def test_batches_without_labels_are_counted(glue: Path, run: Run, as_json: Json) -> None:
    ways = [("unlabelled", "run_dict"), ("uncounted", "summed_mask"), ("uncounted", "run_mask")]
    for data, forward in ways:
        found = as_json(run("eval", "net.pth", *flags(data, forward), "--json"))["evaluation"]
        assert (found["samples"], found["labelled"], found["time_steps"]) == (17, 0, 4)
        common = ("--sparsity", "0.5", "-o", "p.pth", "--force")
        done = run("prune", "net.pth", *flags(data, forward), *common)
        assert done.returncode == 0, done.stderr


def test_samples_that_nobody_can_count_are_told(glue: Path, run: Run) -> None:
    done = run("calibrate", "net.pth", *flags("uncounted", "in_a_dict"), "-o", "c.safetensors")
    words = "how many samples are in a dict of events (4, 6, 12), mask (6, 4) cannot be told"
    assert_one_line(done, 3, "--data", words, "put labels beside them")


def test_flow_has_ones_where_a_batch_has_real_numbers(glue: Path, run: Run) -> None:
    args = {"width": 4, "depth": 2, "time_steps": 1}
    torch.save(build_model(ModelSpec(name="conv-snn", args=args)).state_dict(), "pictures.pth")
    model = [f for k, v in args.items() for f in ("--model-arg", f"{k}={v}")]
    found = []
    for how in (("--data", "glue.py:pictures"), flags("captioned", "picture_of")[2:]):
        out = ("-o", "s.safetensors", "--force", "--criterion", "synflow")
        done = run("score", "pictures.pth", "--model", "conv-snn", *model, *how, *out)
        assert done.returncode == 0, done.stderr
        found.append(load_file("s.safetensors"))
    assert all(torch.equal(found[0][key], value) for key, value in found[1].items())


@pytest.mark.parametrize("data", ["dicts", "tuples", "nested"])
def test_without_a_function_that_runs_them_the_error_says_what_to_do(
    data: str, glue: Path, run: Run
) -> None:
    for more in ((), ("--forward", "steps"), ("--forward", "repeat:2")):
        done = run("eval", "net.pth", *flags(data, None), *more)
        kind = "dict" if data == "dicts" else "tuple"
        words = f"--data: glue.py:{data} gave a {kind}"
        assert_one_line(done, 3, words, "as batch 1", "--forward file.py:function")


def test_what_is_second_and_no_labels_is_none(glue: Path, run: Run, as_json: Json) -> None:
    done = run("eval", "net.pth", *flags("rising", "run_tuple"), "--json")
    assert as_json(done)["evaluation"]["labelled"] == 0


def test_labels_that_may_be_others_are_told(glue: Path, run: Run) -> None:
    done = run("eval", "net.pth", *KINDS["tuple"])
    assert "the second part of a batch is taken for its labels" in done.stderr
    assert "taken for its labels" not in run("eval", "net.pth", *KINDS["dict"]).stderr


def test_a_fault_of_the_function_shows_the_batch(glue: Path, run: Run) -> None:
    done = run("eval", "net.pth", *flags("dicts", "run_tuple"))
    words = "glue.py:run_tuple on a dict of events (4, 6, 12), label (6,), lengths (6,), id str"
    assert_one_line(done, 3, "--forward", words, "raised ValueError")


def recipe(data: str, forward: str | None, **training: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": "glue.py:build", "forward": forward and f"glue.py:{forward}"},
            "data": {"name": f"glue.py:{data}"},
            "training": {"epochs": 2, "batch_size": 6, "learning_rate": 0.1, **training},
        }
    )


def test_a_recipe_trains_on_them(glue: Path, run: Run) -> None:
    found = []
    for asked in (recipe("dicts", "run_dict"), recipe("plain", None)):
        found.append(train(asked, open_recipe_data(asked), device=torch.device("cpu")))
    first, wanted = found
    assert all(torch.equal(first.tensors[key], value) for key, value in wanted.tensors.items())
    Path("r.yaml").write_text(
        "model: {name: glue.py:build}\ndata: {name: glue.py:dicts}\n"
        "training: {epochs: 1, batch_size: 6, learning_rate: 0.1}\n"
    )
    done = run("train", "--recipe", "r.yaml", "--trust-recipe", "--out", "r")
    assert_one_line(done, 3, "data.name: glue.py:dicts gave a dict as batch 1", "model.forward: ")
    cut = ("--set", "model.forward=glue.py:run_dict", "--set", "training.accumulate=2")
    done = run("train", "--recipe", "r.yaml", "--trust-recipe", "--out", "r", *cut)
    assert_one_line(done, 3, "training.accumulate: a dict of events", "cannot be cut")
