"""`--link` and `--strict` on a network whose currents are summed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS = Path(__file__).parents[1] / "graph" / "hand_written.py"
DATA = """
import torch


def batches():
    drawn = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield torch.rand(8, 3, 8, 8, generator=drawn), torch.randint(5, (8,), generator=drawn)
"""


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., Any]:
    """Scores a network whose convolution `conv` drives one neuron, and `stem` two."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(NETWORKS.parent)
    from hand_written import SumOfCurrents

    torch.manual_seed(0)
    (tmp_path / "data.py").write_text(DATA)
    torch.save(SumOfCurrents().state_dict(), "net.pth")
    monkeypatch.delitem(sys.modules, "hand_written")

    def scored(*more: str, build: str = "SumOfCurrents") -> subprocess.CompletedProcess[str]:
        model = f"{NETWORKS}:{build}"
        flags = ("--model", model, "--data", "data.py:batches", "--json", *more)
        return run("score", "net.pth", *flags)

    return scored


def layers(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {layer["weight"]: layer for layer in json.loads(done.stdout)["layers"]}


def test_a_layer_that_drives_two_neurons_shows_both(score: Callable[..., Any]) -> None:
    found = layers(score())
    driven = [link["neuron"] for link in found["stem.weight"]["links"]]
    assert driven == ["spikes after stem", "spikes after conv"]
    assert found["conv.weight"]["criterion"] == "sf"


def test_a_link_settles_which_neuron_counts(score: Callable[..., Any]) -> None:
    done = score("--link", "stem=spikes after conv", "--link", "conv.weight=none")
    assert done.returncode == 0, done.stderr
    found = layers(done)
    assert [link["neuron"] for link in found["stem.weight"]["links"]] == ["spikes after conv"]
    assert found["conv.weight"]["criterion"] == "magnitude"
    assert found["conv.weight"]["reason"] == "no spiking neuron after it"


def test_a_link_to_a_neuron_that_is_not_driven_names_those_that_are(
    score: Callable[..., Any],
) -> None:
    done = score("--link", "conv=lif9")
    assert_one_line(done, 3, "--link: conv drives no lif9", "there are: spikes after conv")
