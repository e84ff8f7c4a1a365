"""Layers in many forms, by the commands: what is told, and what the files hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from layer_twins import LINEAR, Neuron
from torch import Tensor, nn

OWN = """
from test_layers_by_command import X, Several


def build():
    return Several()


def batches():
    yield X
"""
X = (torch.rand(8, 5, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4)


class Several(nn.Module):
    """A layer of heads, stacked pieces, a clipped weight, and an embedding that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = LINEAR["einsum heads out"].written()
        torch.manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(10, 5) * 0.1)
        self.pieces, self.clipped = (
            nn.Parameter(torch.randn(2, 4, 4)),
            nn.Parameter(torch.randn(4, 4)),
        )
        self.neuron = Neuron()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(self.body(x + self.embedding[: len(x)]) @ self.pieces[0])
        return spikes @ self.pieces[1] @ self.clipped.clamp(-0.5, 0.5)


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    torch.save(Several().state_dict(), "own.pth")
    return ("--model", "own.py:build", "--data", "own.py:batches")


WEIGHTS, ALL, PARAMETERS = 40 + 96 + 48 + 32 + 16, 232 + 50, 232 + 50 + 8 + 4 + 24
SHARES = f"of all {ALL} weights, "


@pytest.mark.slow
def test_inspect_tells_the_share_of_all_weights(
    run: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    done = run("inspect", "own.pth", *flags)
    assert done.returncode == 0, done.stderr
    assert f"pruned 0 of {WEIGHTS} prunable weights: 0.00% (0.00% {SHARES}" in done.stdout
    totals = json.loads(run("inspect", "own.pth", *flags, "--json").stdout)["totals"]
    counts = (totals["prunable"], totals["weights"], totals["parameters"])
    assert counts == (WEIGHTS, ALL, PARAMETERS)


def test_a_pruned_file_loads_where_it_came_from_and_layers_that_are_left_are_named(
    run: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    prune = ("prune", "own.pth", *flags, "--sparsity", 0.5, "--repair", "lsq", "-o", "small.pth")
    done = run(*prune, "--allocation", "flips")
    assert done.returncode == 0, done.stderr
    assert f"pruned 116 of {WEIGHTS} prunable weights: 50.00% (41.13% {SHARES}" in done.stdout
    assert (
        "lsq leaves the kept weights of some layers as they are: pieces: a piece of it is "
        "applied at a time; clipped: a function of the network makes its weight"
    ) in " ".join(done.stderr.split())
    module = Several()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    module.load_state_dict(torch.load("small.pth"))
    after = module.state_dict()
    zeros = sum(int((tensor == 0).sum()) for tensor in after.values() if tensor.dim() > 1)
    assert zeros == 116
    assert torch.equal(after["embedding"], before["embedding"])
    kept = after["clipped"] != 0
    assert torch.equal(after["clipped"][kept], before["clipped"][kept])
    key = "body.layer.w_rec"
    assert not torch.equal(after[key], before[key] * (after[key] != 0))  # it was refitted
    done = run("eval", "small.pth", *flags, "--json")
    with torch.no_grad():
        hit = (module(X[0]).sum(0).argmax(1) == X[1]).double().mean()
    assert json.loads(done.stdout)["evaluation"]["accuracy"] == pytest.approx(float(hit))
    done = run("diff", "own.pth", "small.pth", "--json")
    named = [after[key] for key in after if key.endswith("weight") and after[key].dim() > 1]
    zeros = sum(int((tensor == 0).sum()) for tensor in named)  # of files alone, by name
    assert json.loads(done.stdout)["totals"]["zeros_other"] == zeros > 0


def test_a_line_without_other_weights_is_as_before() -> None:
    from snnprune.cli.tables import format_sparsity_line

    totals = {"prunable": 10, "kept": 1, "pruned": 9, "weights": 10, "parameters": 12}
    assert (
        format_sparsity_line(totals)
        == "pruned 9 of 10 weights: 90.00% (75.00% of all 12 parameters)"
    )
