"""Networks that do in eval mode as if they were trained: said by each command that runs them."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from snnprune.cli.commands import make_app

NETWORK = """
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)
        self.norm = nn.BatchNorm2d(4, track_running_stats=kind != "no statistics")

    def forward(self, x):
        u, total = 0, 0
        for _ in range(4):
            u = 0.5 * u + self.norm(self.conv(x))
            spikes = (u >= 0.3).float()
            u = u * (1 - spikes)
            spikes = functional.dropout(spikes, 0.5, training=self.kind == "dropout")
            if self.kind == "noise":
                spikes = spikes * torch.rand_like(spikes).round()
            total = total + self.fc(spikes.flatten(1))
        return total


def build(kind="plain"):
    torch.manual_seed(0)
    return Net(kind)


def batches():
    drawn = torch.Generator().manual_seed(0)
    x = torch.rand(24, 1, 8, 8, generator=drawn)
    return list(zip(x.split(8), torch.randint(3, (24,), generator=drawn).split(8)))
"""
SAID = {
    "no statistics": "BatchNorm by the batch's own mean and variance in eval mode: norm;",
    "dropout": "dropout stays active in eval mode: the network itself;",
    "noise": "the network draws at random in eval mode;",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK, "utf-8")
    return tmp_path


def run(kind: str, *command: str) -> dict[str, object]:
    from snnprune.plugins.user_code import load_object

    torch.save(load_object("net.py:build", field="")(kind).state_dict(), "net.pth")
    flags = ["--model", "net.py:build", "--model-arg", f"kind={kind}", "--data", "net.py:batches"]
    result = CliRunner().invoke(make_app(), [command[0], "net.pth", *flags, *command[1:], "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.many(2)
@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("command", ["inspect", "calibrate", "score", "prune", "eval"])
def test_every_command_that_runs_it_says_so(place: Path, command: str, kind: str) -> None:
    more = {
        "calibrate": ["-o", "cal.safetensors"],
        "prune": ["-o", "out.pth", "--sparsity", "0.5", "--force"],
    }
    warnings = run(kind, command, *more.get(command, []))["warnings"]
    assert isinstance(warnings, list)
    assert len([text for text in warnings if SAID[kind] in text]) == 1
    assert not any(SAID[kind] in str(text) for text in _plain(command, more))


def _plain(command: str, more: dict[str, list[str]]) -> list[object]:
    found = run(
        "plain", command, *[*more.get(command, []), *["--force"] * (command == "calibrate")]
    )
    assert isinstance(found["warnings"], list)
    return found["warnings"]


@pytest.mark.many(1)
@pytest.mark.parametrize("kind", ["dropout", "noise"])
def test_draws_are_those_of_the_seed(place: Path, kind: str) -> None:
    losses = [run(kind, "eval", "--seed", seed)["evaluation"] for seed in ("0", "0", "1")]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.many(2)
@pytest.mark.parametrize("kind", ["plain", *SAID])
def test_a_network_pruned_by_nothing_is_measured_alike_and_kept_to_the_bit(
    place: Path, kind: str
) -> None:
    found = run(kind, "prune", "-o", "out.pth", "--sparsity", "0", "--repair", "lsq")
    assert found["before"] == found["after"]
    given, written = (torch.load(name, weights_only=True) for name in ("net.pth", "out.pth"))
    assert all(torch.equal(written[key], given[key]) for key in given)
