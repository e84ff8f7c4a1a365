"""Numbers that would look right: NaN, silent and constant networks, outputs in the way."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from snnprune.cli.commands import make_app
from snnprune.errors import InputError, NonFiniteError, OutputError, SnnpruneError, UsageError
from snnprune.plugins.user_code import load_object
from snnprune.recipe.loading import load_recipe

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv, self.fc = kind, nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)
        self.threshold = 1e6 if kind == "silent" else 0.1

    def forward(self, x):
        u, total = 0, 0
        for _ in range(4):
            u = 0.5 * u + self.conv(x)
            spikes = (u >= self.threshold).float()
            u = u * (1 - spikes)
            total = total + self.fc(spikes.flatten(1))
        if self.kind == "constant":
            return total * 0 + torch.tensor([0.0, 1.0, 0.0])
        return total / (0.0 if self.kind == "nan" else 1.0)


def build(kind="plain"):
    torch.manual_seed(0)
    return Net(kind)


def batches(seed=0):
    drawn = torch.Generator().manual_seed(seed)
    x = torch.rand(24, 1, 8, 8, generator=drawn)
    return list(zip(x.split(8), torch.randint(3, (24,), generator=drawn).split(8)))


def others():
    return batches(1)


def bare():
    return [x for x, _ in batches()]


def holed():
    found = batches()
    found[1][0][3, 0, 2, 2] = float("nan")
    return found


def holed_bare():
    return [x for x, _ in holed()]


def endless():
    found = batches()
    for x, _ in found[1:]:  # one of them may be set aside
        x[0] = float("inf")
    return found
"""
MORE = {
    "calibrate": ["-o", "c.safetensors"],
    "prune": ["-o", "p.pth", "--sparsity", "0.5", "--criterion", "sf", "--repair", "none"],
    "check": ["--min-accuracy", "0", "--json"],
    "diff": [],
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK, "utf-8")


def run(command: str, data: str, kind: str = "plain", *more: str) -> Any:
    torch.save(load_object("net.py:build", field="")(kind).state_dict(), "net.pth")
    files = ["net.pth", "net.pth"] if command == "diff" else ["net.pth"]
    flags = ["--model", "net.py:build", "--model-arg", f"kind={kind}", "--data", f"net.py:{data}"]
    asked = [command, *files, *flags, *MORE.get(command, []), *more]
    return CliRunner().invoke(make_app(), asked)


def warnings_of(*asked: str) -> list[str]:
    result = run(*asked, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    warnings: list[str] = found["warnings"]
    return warnings


@pytest.mark.many(2)
@pytest.mark.parametrize("data", ["holed", "holed_bare", "endless"])
@pytest.mark.parametrize("command", ["calibrate", "score", "eval", "prune", "check", "diff"])
def test_nan_in_a_batch_is_an_error_that_names_it(command: str, data: str) -> None:
    error = run(command, data).exception
    assert isinstance(error, InputError)
    assert re.fullmatch(r"batch \d has NaN or infinity in it", error.message)
    assert not Path("p.pth").exists()
    assert not Path("c.safetensors").exists()


@pytest.mark.parametrize("data", ["batches", "bare"])
@pytest.mark.parametrize("command", ["eval", "prune"])
def test_nan_in_an_output_is_an_error_with_labels_and_without(command: str, data: str) -> None:
    error = run(command, data, "nan").exception
    assert isinstance(error, NonFiniteError)
    assert not Path("p.pth").exists()


@pytest.mark.many(1)
@pytest.mark.parametrize("command", ["eval", "prune", "diff"])
def test_a_silent_neuron_and_a_constant_answer_are_told(command: str) -> None:
    more = ["--eval-data", "net.py:others"]
    silent = warnings_of(command, "batches", "silent", *more)
    assert [text for text in silent if ": no spike on " in text]
    told = [text for text in silent if "answers one class for all" in text]
    assert told
    said = r"for all 24 samples$" if command == "diff" else r"which have [23] classes$"
    assert all(re.search(said, text) for text in told)
    Path("p.pth").unlink(missing_ok=True)
    more += ["--force"] * (command == "prune")
    constant = warnings_of(command, "batches", "constant", *more)
    assert [text for text in constant if "answers one class for all" in text]
    assert not [text for text in constant if ": no spike on " in text]


@pytest.mark.parametrize("command", ["eval", "calibrate", "diff"])
def test_a_network_that_fires_and_answers_is_not_told_of(command: str) -> None:
    found = warnings_of(command, "batches", "plain")
    assert not [text for text in found if "no spike" in text or "one class" in text]


@pytest.mark.parametrize("command", ["check", "prune"])
def test_a_junit_file_that_is_there_is_replaced_only_by_force(command: str) -> None:
    Path("gates.xml").write_text("mine")
    more = ["--junit", "gates.xml", "--max-sparsity", "1"]
    error = run(command, "batches", "plain", *more).exception
    assert isinstance(error, OutputError)
    assert (error.exit_code, Path("gates.xml").read_text()) == (5, "mine")
    assert not Path("p.pth").exists()
    done = run(command, "batches", "plain", *more, "--force")
    assert done.exit_code == 0, done.output
    assert "testsuite" in Path("gates.xml").read_text()


def test_a_seed_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="each seed should be there once"):
        load_recipe("smoke", ["seeds=[0,1,0]"])


@pytest.mark.parametrize(
    ("given", "said"),
    [("needs='gradients'", "did you mean gradient"), ("needs='weight', scale='lin'", "no scale")],
)
def test_a_criterion_of_unknown_needs_is_refused_before_work(given: str, said: str) -> None:
    Path("mine.py").write_text(
        "from snnprune.pruning.criteria import criterion\n"
        f"@criterion({given})\ndef mine(evidence):\n    return evidence.weight.abs()\n"
    )
    error = run("score", "batches", "plain", "--criterion", "mine.py:mine").exception
    assert isinstance(error, SnnpruneError)
    assert isinstance(error, UsageError | InputError)
    assert said in f"{error.message} {error.hint}"
