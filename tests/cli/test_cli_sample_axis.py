"""Where the samples of a batch lie: the same counts with labels and without; swapped axes told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from snnprune.cli.commands import make_app
from snnprune.cli.progress import count_images
from snnprune.data.batches import Pair, SizedPair
from snnprune.plugins.user_code import load_object

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, time, output):
        super().__init__()
        self.time, self.output = time, output
        self.fc1, self.fc2 = nn.Linear(20, 30), nn.Linear(30, 5)

    def forward(self, x):
        x = x.movedim(self.time, 0)
        u, steps = torch.zeros(x.shape[1], 30), []
        for current in x:
            u = 0.5 * u + self.fc1(current)
            spikes = (u >= 0.5).float()
            u = u * (1 - spikes)
            steps.append(self.fc2(spikes))
        steps = torch.stack(steps)
        if self.output == "scores":
            return steps.sum(0)
        if self.output == "list":
            return list(steps)
        if self.output == "pair":
            return steps, u
        return steps.movedim(0, self.time) if self.output == "as fed" else steps


class Mixing(nn.Module):
    # takes samples for time steps
    def __init__(self):
        super().__init__()
        self.inner = Net(0, "steps")

    def forward(self, x):
        return self.inner(x.unsqueeze(1)).squeeze(1)


def build(time="0", output="scores"):
    torch.manual_seed(0)
    return Mixing() if output == "mixing" else Net(int(time), output)


def labelled(shape=(8, 2), labels=2, flat=False):
    drawn = torch.Generator().manual_seed(0)
    size = shape[:1] if flat else shape
    return [
        ((torch.rand(*size, 20, generator=drawn) > 0.6).float(),
         torch.randint(5, (labels,), generator=drawn))
        for _ in range(4)
    ]


def few(): return labelled()
def few_bare(): return [x for x, _ in labelled()]
def square(): return labelled((6, 6), 6)
def square_bare(): return [x for x, _ in square()]
def first(): return labelled((3, 7), 3)
def first_bare(): return [x for x, _ in first()]
def swapped(): return labelled((8, 3), 8)
def flat(): return labelled((9, 1), 9, flat=True)
def one(): return labelled((8, 1), 1)
def one_bare(): return [x for x, _ in one()]
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK, "utf-8")


def evaluated(data: str, *, time: int, output: str, command: str = "eval") -> dict[str, Any]:
    module = load_object("net.py:build", field="")(str(time), output)
    torch.save(module.state_dict(), "net.pth")
    args = ["--model-arg", f"time={time}", "--model-arg", f"output={output}"]
    flags = ["--model", "net.py:build", *args, "--data", f"net.py:{data}", "--json"]
    result = CliRunner().invoke(make_app(), [command, "net.pth", *flags])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


CASES = [
    *(("few", 0, 2, output) for output in ("scores", "steps", "as fed", "list", "pair")),
    *(("square", time, 6, output) for time in (0, 1) for output in ("scores", "steps", "as fed")),
    *(("first", 1, 3, output) for output in ("scores", "steps", "as fed", "list")),
    *(("one", 0, 1, output) for output in ("scores", "steps", "list")),
]


@pytest.mark.many(1)
@pytest.mark.parametrize(("data", "time", "samples", "output"), CASES)
def test_samples_steps_and_energy_are_the_same_with_labels_and_without(
    data: str, time: int, samples: int, output: str
) -> None:
    labelled = evaluated(data, time=time, output=output)
    bare = evaluated(f"{data}_bare", time=time, output=output)
    assert labelled["evaluation"]["samples"] == bare["evaluation"]["samples"] == 4 * samples
    for key in ("time_steps", "samples"):
        assert labelled["evaluation"].get(key) == bare["evaluation"].get(key)
    assert labelled["workload"] == bare["workload"]
    assert labelled["warnings"] == bare["warnings"] == []


@pytest.mark.parametrize(("time", "output"), [(0, "steps"), (0, "as fed"), (1, "as fed")])
def test_where_samples_and_steps_are_as_many_the_output_is_read_along_the_samples(
    time: int, output: str
) -> None:
    module = load_object("net.py:build", field="")(str(time), output)
    right = 0
    for x, y in load_object("net.py:square", field="")():
        steps = module(x)
        samples = 0 if output == "as fed" and time == 1 else 1
        right += int((steps.sum(1 - samples).argmax(-1) == y).sum())
    assert evaluated("square", time=time, output=output)["evaluation"]["correct"] == right


def test_labels_of_another_dimension_than_the_networks_samples_are_told() -> None:
    found = evaluated("swapped", time=0, output="steps")
    (told,) = [text for text in found["warnings"] if "swapped" in text]
    assert "takes dimension 1 of a batch of shape (8, 3, 20) for its samples" in told
    assert "8 labels come with it" in told


def test_a_network_that_takes_samples_for_steps_is_told() -> None:
    found = evaluated("flat", time=0, output="mixing")
    assert [text for text in found["warnings"] if "take samples for time steps" in text]


@pytest.mark.parametrize("command", ["calibrate", "score"])
def test_calibration_counts_them_too(command: str) -> None:
    if command == "score":
        assert evaluated("few_bare", time=0, output="steps", command="score")["ok"]
        return
    torch.save(load_object("net.py:build", field="")("0", "steps").state_dict(), "net.pth")
    flags = ["--model", "net.py:build", "--model-arg", "output=steps", "--data", "net.py:few_bare"]
    result = CliRunner().invoke(
        make_app(),
        ["calibrate", "net.pth", *flags, "--samples", "5", "-o", "c.safetensors", "--json"],
    )
    assert json.loads(result.stdout)["samples"] == 6  # whole batches of 2


def test_speed_is_told_in_samples() -> None:
    x = torch.zeros(8, 2, 20)
    assert count_images(Pair(x, None)) == 8  # all that can be seen of it
    assert count_images(SizedPair.of(Pair(x, None), 2)) == 2
