"""Data of one's own: nothing that was trained, calibrated or chosen on is called test."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from snnprune.cli.app import app
from snnprune.errors import InputError

OWN = """
import torch
from torch.utils.data import DataLoader, TensorDataset


def pictures(n=120):
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, 16, 16, generator=drawn), torch.randint(10, (n,), generator=drawn)


def noise():
    return DataLoader(TensorDataset(*pictures()), 20, shuffle=True)


def one():
    return [pictures()]


def named():
    x, y = pictures()
    return {"train": [(x[:80], y[:80])], "test": [(x[80:], y[80:])]}


def others():
    return [pictures(30)]
"""
RECIPE = """
model: {name: conv-snn, args: {in_channels: 1, size: 16, classes: 10, width: 8, depth: 2,
  time_steps: 2}}
data: {name: "own.py:noise", validation: 0.25}
training: {epochs: 2, batch_size: 20, optimizer: adamw, learning_rate: 0.01}
imp: {methods: [imp], sparsities: [0.5], rewind_epoch: 1}
search: {sparsities: [0.5], epochs: 2}
"""
NO_TEST = "no test images: numbers are of validation images"
HOW = "; test data are named by --test-data, data.test or the data function"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN, "utf-8")
    Path("noise.yaml").write_text(RECIPE, "utf-8")


def run(*command: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def told(*command: str) -> str:
    result = CliRunner().invoke(app, [*command])
    assert result.exit_code == 0, result.output
    return re.sub(r"\s+", " ", result.output)


def trained(out: str = "r", *more: str) -> Path:
    run("train", "--recipe", "noise.yaml", "--out", out, *more)
    return Path(out) / "model.safetensors"


def mentions(text: str) -> list[str]:
    """Where images are called those of a test, the advice left out."""
    known = text.replace(NO_TEST, "").replace(HOW.removeprefix("; "), "")
    known = known.replace('"test": null', "").replace("test: null", "")
    return re.findall(r".{30}\btest\b.{30}", known.replace("\n", " "))


@pytest.mark.parametrize("command", ["train", "imp", "search"])
def test_no_file_of_a_run_without_test_data_speaks_of_a_test(command: str) -> None:
    shown = told(command, "--recipe", "noise.yaml", "--out", "r")
    assert "validation accuracy" in shown
    assert NO_TEST in shown
    assert mentions(shown) == []
    files = [path for path in Path("r").rglob("*") if path.suffix in {".md", ".html", ".svg"}]
    files += [*Path("r").rglob("*.json"), *Path("r").rglob("*.jsonl")]
    assert len(files) > 3
    for path in files:
        assert mentions(path.read_text("utf-8")) == [], path
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text("utf-8").splitlines()]
    tickets = [row for row in rows if row["kind"] == "ticket"]
    assert tickets
    for row in tickets:
        assert row["test"] is None
        assert (row["measured"]["images"], row["measured"]["labelled"]) == ("validation", 30)
        assert row["measured"]["correct"] / 30 == row["validation_accuracy"]


def test_without_validation_the_numbers_are_of_training_images() -> None:
    run("imp", "--recipe", "noise.yaml", "--set", "data.validation=0", "--out", "r")
    report = json.loads(Path("r/report.json").read_text("utf-8"))
    assert report["summary"]["accuracies_on"] == "train"
    assert any("numbers are of training images" in text for text in report["warnings"])
    assert "training accuracy (%)" in Path("r/table.md").read_text("utf-8")


def test_a_run_with_test_data_measures_on_them() -> None:
    run("train", "--recipe", "noise.yaml", "--out", "r", "--test-data", "own.py:others")
    report = json.loads(Path("r/report.json").read_text("utf-8"))
    assert (report["test"]["images"], report["test"]["labelled"]) == ("test", 30)
    assert not any("test" in text for text in report["warnings"])
    recipe = Path("r/recipe.yaml").read_text("utf-8")
    assert "test: own.py:others" in recipe
    named = run("train", "--recipe", "noise.yaml", "--out", "s", "--set", "data.name=own.py:named")
    assert named["test"]["labelled"] == 40


def test_validation_data_may_be_another_set() -> None:
    run("train", "--recipe", "noise.yaml", "--out", "r", "--eval-data", "own.py:others")
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text("utf-8").splitlines()]
    assert rows[-1]["measured"]["labelled"] == 30
    assert rows[-1]["measured"]["images"] == "validation"


def test_a_set_that_is_unknown_is_refused_before_work() -> None:
    command = ["train", "--recipe", "noise.yaml", "--out", "r", "--test-data", "nothing"]
    with pytest.raises(InputError, match="unknown data set 'nothing'") as caught:
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert caught.value.field == "data.test"
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("data", "images", "count"),
    [("noise", "validation", 12), ("one", "train", 120), ("named", "test", 40)],
)
def test_prune_measures_on_what_it_did_not_calibrate_on_where_it_can(
    data: str, images: str, count: int
) -> None:
    model = trained("r", "--set", "data.validation=0", "--set", "data.name=own.py:one")
    found = run(
        "prune",
        str(model),
        "--data",
        f"own.py:{data}",
        "--sparsity",
        "0.5",
        "-o",
        "p.pt.safetensors",
    )
    for key in ("before", "after"):
        assert (found[key]["images"], found[key]["labelled"]) == (images, count)
    said = [text for text in found["warnings"] if "test data are named by" in text]
    assert len(said) == (images != "test")
    again = run("eval", "p.pt.safetensors", "--data", f"own.py:{data}")
    assert (again["split"], again["evaluation"]["labelled"]) == (images, count)
    assert again["evaluation"]["correct"] == found["after"]["correct"]


def test_what_nobody_trained_on_is_given() -> None:
    model = trained()
    found = run("eval", str(model), "--data", "own.py:others")
    assert (found["split"], found["evaluation"]["labelled"]) == ("given", 30)
    assert "(30 given images" in told("eval", str(model), "--data", "own.py:others")


def test_targets_and_drops_work_on_data_of_ones_own() -> None:
    model = str(trained())
    found = run(
        "prune",
        model,
        "--data",
        "own.py:noise",
        "--max-accuracy-drop",
        "99",
        "-o",
        "a.safetensors",
        "--criterion",
        "magnitude",
    )
    assert (found["search"]["split"], found["search"]["images"]) == ("validation", 30)
    gate = ["--sparsity", "0.5", "--max-accuracy-drop", "99", "--criterion", "magnitude"]
    gated = run(
        "prune",
        model,
        "--data",
        "own.py:noise",
        *gate,
        "-o",
        "b.safetensors",
        "--eval-data",
        "own.py:others",
    )
    assert gated["ok"]
    assert (gated["after"]["images"], gated["after"]["labelled"]) == ("validation", 30)
    found = run(
        "prune",
        model,
        "--data",
        "own.py:one",
        "--target-accuracy",
        "0.01",
        "-o",
        "c.safetensors",
        "--criterion",
        "magnitude",
        "--force",
    )
    assert found["search"]["split"] in {"training", "validation"}


def test_the_card_says_which_images() -> None:
    model = str(trained())
    run(
        "prune",
        model,
        "--data",
        "own.py:noise",
        "--sparsity",
        "0.5",
        "-o",
        "p.safetensors",
        "--report",
        "page",
    )
    card = Path("page/report.md").read_text("utf-8")
    assert "split: validation" in card
    assert mentions(card) == []


def test_finetune_measures_on_the_same_images_before_and_after() -> None:
    model = str(trained())
    run("prune", model, "--data", "own.py:noise", "--sparsity", "0.5", "-o", "p.safetensors")
    run("finetune", "p.safetensors", "--recipe", "noise.yaml", "--out", "f")
    report = json.loads(Path("f/report.json").read_text("utf-8"))
    assert report["before"]["images"] == report["tickets"][-1]["measured"]["images"] == "validation"
    assert report["test"] is None


def test_sensitivity_compares_on_validation_images() -> None:
    model = str(trained())
    flags = ["--data", "own.py:noise", "--sparsities", "0.9", "--criterion", "magnitude"]
    found = run("sensitivity", model, *flags, "--repair", "none")
    assert (found["split"], found["samples"]) == ("validation", 30)
