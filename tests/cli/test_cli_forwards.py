"""`--forward repeat:T` and `steps`: what a time loop of one's own does, without writing one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line

from snnprune.recipe.schema import Recipe
from snnprune.training.setup import open_recipe_data
from snnprune.training.train import train

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]

NETS = """
import torch
from torch import nn


class Membranes(nn.Module):
    '''snnTorch: a call is a time step, and gives spikes and membranes.'''

    def __init__(self):
        import snntorch

        super().__init__()
        self.first, self.lif = nn.Linear(36, 12), snntorch.Leaky(beta=0.9, init_hidden=True)
        self.second = nn.Linear(12, 3)
        self.last = snntorch.Leaky(beta=0.9, init_hidden=True, output=True)

    def forward(self, x):
        return self.last(self.second(self.lif(self.first(x.flatten(1)))))


def snntorch():
    return Membranes()


def spikingjelly():
    from spikingjelly.activation_based import layer, neuron

    return nn.Sequential(
        layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), neuron.LIFNode(),
        layer.Conv2d(4, 4, 3), layer.BatchNorm2d(4), neuron.LIFNode(),
        layer.Flatten(), layer.Linear(16, 3),
    )


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u * u)


class Own(nn.Module):
    '''A membrane in an attribute, which nobody resets.'''

    def __init__(self):
        super().__init__()
        self.hidden, self.out, self.membrane = nn.Linear(36, 8), nn.Linear(8, 3), None

    def forward(self, x):
        current = self.hidden(x.flatten(1))
        u = current if self.membrane is None else 0.5 * self.membrane + current
        spikes = Fire.apply(u - 0.5)
        self.membrane = u * (1 - spikes)
        return self.out(spikes)


def own():
    return Own()


def first(output):
    return output[0] if isinstance(output, tuple) else output


def three(model, x):
    return torch.stack([first(model(x)) for _ in range(3)])


def two_from_rest(model, x):
    model.membrane = None
    logits = torch.stack([model(x) for _ in range(2)])
    model.membrane = None
    return logits


def over_time(model, x):
    return torch.stack([first(model(step)) for step in x])


def summed(model, x):
    return over_time(model, x).sum(0)


def images():
    drawn = torch.Generator().manual_seed(0)
    for count in (8, 8, 5):
        yield 3 * torch.rand(count, 1, 6, 6, generator=drawn), torch.arange(count) % 3


def events():
    drawn = torch.Generator().manual_seed(0)
    for count in (8, 8, 5):
        x = torch.rand(4, count, 1, 6, 6, generator=drawn) > 0.3
        yield 2 * x.float(), torch.arange(count) % 3


def unlabelled():
    return [x for x, _ in events()]


def turned():
    return [(x.transpose(0, 1), y) for x, y in events()]
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `nets.py` and a checkpoint for each of its networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("nets.py").write_text(NETS)
    scope: dict[str, Any] = {"__name__": "nets"}
    exec(NETS, scope)
    for name in ("snntorch", "spikingjelly", "own"):
        torch.manual_seed(0)
        module = scope[name]()
        state = module.state_dict()
        for key, value in state.items():
            if key.endswith("running_mean"):
                value -= 1
        torch.save(state, f"{name}.pth")
    return tmp_path


def flags(name: str, data: str, forward: str) -> tuple[str, ...]:
    return (
        f"{name}.pth",
        *("--model", f"nets.py:{name}", "--data", f"nets.py:{data}", "--forward", forward),
    )


@pytest.mark.many(1)
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "own"])
@pytest.mark.parametrize(
    ("forward", "loop", "data", "steps"),
    [("repeat:3", "three", "images", 3), ("steps", "over_time", "events", 4)],
)
def test_it_does_what_a_loop_of_ones_own_does(
    name: str, forward: str, loop: str, data: str, steps: int, nets: Path, run: Run, as_json: Json
) -> None:
    found, wanted = (
        as_json(run("eval", *flags(name, data, one), "--json"))
        for one in (forward, f"nets.py:{loop}")
    )
    assert found["evaluation"] == wanted["evaluation"]
    assert found["evaluation"]["time_steps"] == steps
    assert any(found["evaluation"]["firing_rates"].values())
    assert found["model"]["forward"] == forward
    layers, same = (
        as_json(run("inspect", *flags(name, data, one), "--json"))["layers"]
        for one in (forward, f"nets.py:{loop}")
    )
    assert layers == same
    made = {}
    for one in (forward, f"nets.py:{loop}"):
        done = run(
            "prune", *flags(name, data, one), "--sparsity", "0.5", "-o", "p.pth", "--force",
            "--repair", "obs+tune", "--tune-steps", 24,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made[one] = torch.load("p.pth")
    assert all(torch.equal(made[forward][key], value) for key, value in made[one].items())


def test_whole_is_the_default(nets: Path, run: Run) -> None:
    done = run("calibrate", *flags("own", "images", "whole"), "-o", "c.safetensors")
    assert done.returncode == 0, done.stderr
    plain = flags("own", "images", "whole")[:-2]
    done = run("score", *plain, "--calibration", "c.safetensors")
    assert done.returncode == 0, done.stderr
    done = run("score", *plain, "--forward", "repeat:2", "--calibration", "c.safetensors")
    assert_one_line(done, 3, "was not taken on own.pth")


@pytest.mark.slow
def test_events_without_labels_are_counted_along_their_second_dimension(
    nets: Path, run: Run, as_json: Json
) -> None:
    for forward in ("steps", "nets.py:summed"):
        found = as_json(run("eval", *flags("own", "unlabelled", forward), "--json"))["evaluation"]
        assert (found["samples"], found["labelled"], found["time_steps"]) == (21, 0, 4)
        limited = run("eval", *flags("own", "unlabelled", forward), "--samples", "9", "--json")
        assert as_json(limited)["evaluation"]["samples"] == 16
    made = {}
    for data in ("events", "unlabelled"):
        common = ("--sparsity", "0.5", "-o", "p.pth", "--force", "--repair", "lsq")
        done = run("prune", *flags("own", data, "steps"), *common)
        assert done.returncode == 0, done.stderr
        made[data] = torch.load("p.pth")
    assert all(torch.equal(made["events"][k], v) for k, v in made["unlabelled"].items())


def test_samples_before_time_are_refused(nets: Path, run: Run) -> None:
    done = run("eval", *flags("own", "turned", "steps"))
    assert_one_line(done, 3, "--forward", "(8, 4, 1, 6, 6) with 8 labels has no time first")


def test_a_fault_of_the_network_is_its_own(nets: Path, run: Run) -> None:
    done = run("eval", *flags("own", "events", "repeat:2"))
    assert_one_line(done, 3, "--model", "nets.py:own on a batch of shape (4, 8, 1, 6, 6) raised")


def test_a_way_of_a_recipe_is_checked_without_running_anything(nets: Path, run: Run) -> None:
    text = (
        "model: {name: nets.py:own, forward: repeat:x}\ndata: {name: nets.py:images}\n"
        "training: {epochs: 1, batch_size: 8, learning_rate: 0.1}\n"
    )
    Path("r.yaml").write_text(text)
    assert_one_line(run("recipes", "validate", "r.yaml"), 3, "model.forward: 'repeat:x' has no")
    Path("r.yaml").write_text(text.replace("repeat:x", "repeat:2"))
    assert run("recipes", "validate", "r.yaml").returncode == 0


def test_training_begins_each_batch_at_rest_with_neurons_of_ones_own(nets: Path) -> None:
    found = []
    for forward in ("repeat:2", "nets.py:two_from_rest"):
        asked = Recipe.model_validate(
            {
                "model": {"name": "nets.py:own", "forward": forward},
                "data": {"name": "nets.py:images"},
                "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1},
            }
        )
        found.append(train(asked, open_recipe_data(asked), device=torch.device("cpu")))
    built_in, by_hand = found
    assert all(torch.equal(by_hand.tensors[k], v) for k, v in built_in.tensors.items())
    assert built_in.epochs == by_hand.epochs
    assert built_in.test == by_hand.test
