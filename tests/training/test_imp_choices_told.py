"""What choices of `imp` do is in its files and its report."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from small_runs import write_images
from typer.testing import CliRunner
from valid_reports import assert_valid

from snnprune.cli.commands import make_app

RECIPE = """
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 3}}}}
data: {{name: "tensors:{images}", validation: 0.25}}
training: {{epochs: 2, batch_size: 4, learning_rate: 0.05}}
imp: {{methods: [imp], sparsities: {sparsities}, rewind_epoch: 1, {more}}}
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images.safetensors")


def run(images: Path, sparsities: str, more: str) -> Path:
    folder = images.parent
    text = RECIPE.format(images=images, sparsities=sparsities, more=more)
    (folder / "imp.yaml").write_text(text, "utf-8")
    asked = ["imp", "--recipe", str(folder / "imp.yaml"), "--out", str(folder / "run")]
    result = CliRunner().invoke(make_app(), asked)
    assert result.exit_code == 0, result.output
    return folder / "run"


def time_steps(model: Path) -> int:
    with safe_open(model, "pt") as file:
        return int(json.loads(file.metadata()["snnprune.model"])["args"]["time_steps"])


@pytest.mark.slow
def test_early_time_files_have_the_steps_that_they_were_trained_with(images: Path) -> None:
    out = run(images, "[0.5, 0.75]", "early_time_steps: 2")
    models = {path.parent.name: time_steps(path) for path in out.rglob("model.safetensors")}
    assert models == {"round-00": 2, "round-01": 2, "round-02": 3}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = {row["round"]: row["test"]["time_steps"] for row in rows if row["kind"] == "ticket"}
    assert measured == {0: 2, 1: 2, 2: 3}
    for name, steps in models.items():
        found = CliRunner().invoke(
            make_app(),
            [
                "eval",
                str(out / name / "model.safetensors"),
                "--data",
                f"tensors:{images}",
                "--json",
            ],
        )
        assert json.loads(found.stdout)["evaluation"]["time_steps"] == steps


@pytest.mark.slow
def test_tickets_that_the_dense_run_gave_say_when(images: Path) -> None:
    out = run(images, "[0.5, 0.75]", "early_bird: 0.1, early_bird_ends: dense")
    report = json.loads((out / "report.json").read_text())
    assert_valid(report)
    about = [row["early_bird"] for row in report["tickets"] if row["round"] > 0]
    assert [one["epochs"] for one in about] == [2, 2]
    assert not any(one["settled"] for one in about)
    told = [text for text in report["warnings"] if "masks did not settle" in text]
    assert len(told) == 2
    assert not any("ends no round" in text for text in report["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize(("sparsities", "told"), [("[0.5]", True), ("[0.5, 0.75]", False)])
def test_early_bird_that_ends_nothing_says_so(images: Path, sparsities: str, told: bool) -> None:
    out = run(images, sparsities, "early_bird: 0.1")
    warnings = json.loads((out / "report.json").read_text())["warnings"]
    assert any("early_bird ends no round here" in text for text in warnings) == told
