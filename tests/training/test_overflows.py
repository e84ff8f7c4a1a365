"""Gradients that overflow in fp16: a scaler of torch's at work on a CPU, with a scale too large."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from snnprune.recipe.sections import TrainingSection
from snnprune.training.optimization import compute_learning_rate

Run = Callable[..., subprocess.CompletedProcess[str]]
FAULTY = Path(__file__).parent.parent / "training" / "faulty.py"
STEPS = 3  # of 12 images in batches of 4
RATE = 0.0001
RECIPE = """\
model: {{name: "{code}:loud"}}
data: {{name: "{code}:batches", validation: 0}}
training: {{epochs: {epochs}, batch_size: 4, learning_rate: {rate}}}
"""


@pytest.fixture(autouse=True)
def _scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest scale that float32 has: each overflow halves it."""
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: real("cpu", init_scale=2.0**127))


@pytest.fixture
def train(run: Run, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`train(epochs)`: a run in `tmp_path / "run"`."""

    def ran(epochs: int) -> subprocess.CompletedProcess[str]:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.format(code=FAULTY, epochs=epochs, rate=RATE))
        return run("train", "--recipe", recipe, "--out", tmp_path / "run", "--trust-recipe")

    return ran


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "epoch"]


def test_steps_that_overflow_are_counted_and_the_schedule_waits_for_them(
    train: Run, tmp_path: Path
) -> None:
    epochs = 8
    done = train(epochs)
    assert done.returncode == 0, done.stderr
    rows = epochs_of(tmp_path / "run")
    skipped = [row["skipped"] for row in rows]
    assert 1 < sum(skipped) < epochs * STEPS
    training = TrainingSection(epochs=epochs, batch_size=4, learning_rate=RATE)
    taken = 0
    for row in rows:
        taken += STEPS - row["skipped"]
        assert row["learning_rate"] == compute_learning_rate(training, max(taken - 1, 0), STEPS)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    told = f"the gradient of {sum(skipped)} batches overflowed in fp16: no step was taken with them"
    assert told in report["warnings"]


def test_a_run_in_which_all_steps_overflowed_ends_with_6_and_no_network(
    train: Run, tmp_path: Path
) -> None:
    done = train(1)
    assert done.returncode == 6
    told = "error: training.precision: all 3 steps overflowed in fp16. choose bf16 or off"
    assert told in done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "DONE").exists()
