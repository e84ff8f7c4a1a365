"""Data of one's own: nothing that was trained, calibrated or chosen on is called test."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from snnprune.cli.commands import make_app
from snnprune.errors import InputError, UsageError

OWN = """
import torch
from torch.utils.data import DataLoader, TensorDataset


def pictures(n=120, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 16, 16, generator=drawn), torch.randint(10, (n,), generator=drawn)


def noise():
    return DataLoader(TensorDataset(*pictures()), 20, shuffle=True)


def one():
    return [pictures()]


def named():
    x, y = pictures()
    return {"train": [(x[:80], y[:80])], "test": [(x[80:], y[80:])]}


def shuffled():
    x, y = pictures()
    order = torch.randperm(len(x))
    return [(x[order], y[order])]


def others():
    return [pictures(30, seed=1)]
"""
RECIPE = """
model: {name: conv-snn, args: {in_channels: 1, size: 16, classes: 10, width: 8, depth: 2,
  time_steps: 2}}
data: {name: "own.py:noise", validation: 0.25}
training: {epochs: 2, batch_size: 20, optimizer: adamw, learning_rate: 0.01}
imp: {methods: [imp], sparsities: [0.5], rewind_epoch: 1}
search: {sparsities: [0.5], epochs: 2}
"""
MINE = ("--recipe", "noise.yaml", "--trust-recipe")
NO_TEST = "no test samples: numbers are of validation samples"
HOW = "; test data are named by --test-data, data.test or the data function"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN, "utf-8")
    Path("noise.yaml").write_text(RECIPE, "utf-8")


def run(*command: str) -> dict[str, Any]:
    result = CliRunner().invoke(make_app(), [*command, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def told(*command: str) -> str:
    result = CliRunner().invoke(make_app(), [*command])
    assert result.exit_code == 0, result.output
    return re.sub(r"\s+", " ", result.output)


def trained(out: str = "r", *more: str) -> Path:
    run("train", *MINE, "--out", out, *more)
    return Path(out) / "model.safetensors"


def mentions(text: str) -> list[str]:
    """Where images are called those of a test, the advice left out."""
    known = text.replace(NO_TEST, "").replace(HOW.removeprefix("; "), "")
    known = known.replace('"test": null', "").replace("test: null", "")
    return re.findall(r".{30}\btest\b.{30}", known.replace("\n", " "))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "imp", "search"])
def test_no_file_of_a_run_without_test_data_speaks_of_a_test(command: str) -> None:
    shown = told(command, *MINE, "--out", "r")
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


@pytest.mark.slow
def test_without_validation_the_numbers_are_of_training_images() -> None:
    run("imp", *MINE, "--set", "data.validation=0", "--out", "r")
    report = json.loads(Path("r/report.json").read_text("utf-8"))
    assert report["summary"]["accuracies_on"] == "train"
    assert any("numbers are of training samples" in text for text in report["warnings"])
    assert "training accuracy (%)" in Path("r/table.md").read_text("utf-8")


def test_a_run_with_test_data_measures_on_them() -> None:
    run("train", *MINE, "--out", "r", "--test-data", "own.py:others")
    report = json.loads(Path("r/report.json").read_text("utf-8"))
    assert (report["test"]["images"], report["test"]["labelled"]) == ("test", 30)
    assert not any("test" in text for text in report["warnings"])
    recipe = Path("r/recipe.yaml").read_text("utf-8")
    assert "test: own.py:others" in recipe
    named = run("train", *MINE, "--out", "s", "--set", "data.name=own.py:named")
    assert named["test"]["labelled"] == 40


def test_validation_data_may_be_another_set() -> None:
    run("train", *MINE, "--out", "r", "--eval-data", "own.py:others")
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text("utf-8").splitlines()]
    assert rows[-1]["measured"]["labelled"] == 30
    assert rows[-1]["measured"]["images"] == "validation"


def test_a_set_that_is_unknown_is_refused_before_work() -> None:
    command = ["train", *MINE, "--out", "r", "--test-data", "nothing"]
    with pytest.raises(UsageError, match="unknown data set 'nothing'") as caught:
        CliRunner().invoke(make_app(), command, catch_exceptions=False)
    assert caught.value.field == "--test-data"
    assert not Path("r").exists()


@pytest.mark.slow
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
    assert "(30 given samples" in told("eval", str(model), "--data", "own.py:others")


@pytest.mark.slow
def test_targets_and_drops_work_on_data_of_ones_own() -> None:
    model = str(trained())
    dense = run("eval", model, "--data", "own.py:noise", "--split", "validation")["evaluation"]
    assert dense["correct"]
    nearly_all = str(100 * dense["accuracy"] - 1)
    found = run(
        "prune",
        model,
        "--data",
        "own.py:noise",
        "--max-accuracy-drop",
        nearly_all,
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_finetune_measures_on_the_same_images_before_and_after() -> None:
    model = str(trained())
    run("prune", model, "--data", "own.py:noise", "--sparsity", "0.5", "-o", "p.safetensors")
    run("finetune", "p.safetensors", *MINE, "--out", "f")
    report = json.loads(Path("f/report.json").read_text("utf-8"))
    assert report["before"]["images"] == report["tickets"][-1]["measured"]["images"] == "validation"
    assert report["test"] is None


def test_sensitivity_compares_on_validation_images() -> None:
    model = str(trained())
    flags = ["--data", "own.py:noise", "--sparsities", "0.9", "--criterion", "magnitude"]
    found = run("sensitivity", model, *flags, "--repair", "none")
    assert (found["split"], found["samples"]) == ("validation", 30)


def refused(*command: str) -> InputError:
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(make_app(), [*command], catch_exceptions=False)
    return caught.value


PRUNE = ["--sparsity", "0.5", "-o", "p.safetensors"]


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("flag", "other", "why"),
    [
        ("--test-data", "own.py:noise", "own.py:noise is what the network learns from"),
        ("--eval-data", "own.py:noise", "own.py:noise is what the network learns from"),
        ("--test-data", "own.py:one", "90 of the 120 test samples looked at are training"),
        ("--test-data", "own.py:shuffled", "90 of the 120 test samples looked at are training"),
    ],
)
def test_what_is_learnt_from_is_refused_for_a_test(flag: str, other: str, why: str) -> None:
    model = str(trained())
    error = refused("prune", model, "--data", "own.py:noise", flag, other, *PRUNE)
    assert why in error.message
    assert error.field == flag
    assert not Path("p.safetensors").exists()
    if "learns" in why:  # what the file says of itself is enough
        error = refused("eval", model, "--data", "own.py:others", flag, other)
        assert (why in error.message, error.field) == (True, flag)


def test_a_recipe_may_not_name_its_training_images_for_the_test() -> None:
    error = refused("train", *MINE, "--out", "r", "--set", "data.test=own.py:noise")
    assert (error.field, error.message) == (
        "data.test",
        "own.py:noise is what the network learns from",
    )
    assert not Path("r").exists()


def test_the_same_set_for_choosing_and_for_the_test_is_refused() -> None:
    model = str(trained())
    flags = ["--eval-data", "own.py:others", "--test-data", "own.py:others"]
    error = refused("prune", model, "--data", "own.py:noise", *flags, *PRUNE)
    assert "30 of the 30 test samples looked at are validation samples" in error.message


@pytest.mark.slow
def test_test_images_beside_those_of_eval_data_are_looked_at_once_and_last() -> None:
    model = str(trained())
    flags = ["--data", "own.py:named", "--eval-data", "own.py:others"]
    found = run("prune", model, *flags, *PRUNE, "--report", "page")
    assert (found["after"]["images"], found["after"]["labelled"]) == ("validation", 30)
    assert (found["test"]["images"], found["test"]["labelled"]) == ("test", 40)
    page = Path("page/report.md").read_text("utf-8")
    assert "accuracy (30 validation samples)" in page
    assert "accuracy (40 test samples)" in page
    again = run("eval", "p.safetensors", "--data", "own.py:named", "--split", "test")
    assert again["evaluation"]["correct"] == found["test"]["correct"]
    shown = told("prune", model, *flags, *PRUNE, "--force")
    assert re.search(r"tested: accuracy [\d.]+%, loss [\d.]+ \(40 test samples", shown)
    alone = run("prune", model, "--data", "own.py:named", *PRUNE, "--force")
    assert (alone["after"]["images"], alone["test"]) == ("test", None)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["noise", "named"])
def test_calibrate_and_score_leave_alone_what_prune_measures_on(data: str) -> None:
    model = str(trained("r", "--set", "data.name=own.py:others"))
    flags = ["--data", f"own.py:{data}"]
    taken = run("calibrate", model, *flags, "-o", "c.safetensors")
    count = {"noise": 108, "named": 80}[data]
    assert taken["samples"] == count
    fresh = run("prune", model, *flags, *PRUNE)
    kept = run("prune", model, *flags, *PRUNE, "--calibration", "c.safetensors", "--force")
    assert fresh["after"]["correct"] == kept["after"]["correct"]
    scored = run("score", model, *flags, "-o", "s.safetensors")
    assert (scored["data"] or {}).get("validation", 0.0) == (0.1 if data == "noise" else 0.0)


@pytest.mark.slow
def test_what_was_trained_on_whole_is_never_called_validation() -> None:
    model = str(trained("r", "--eval-data", "own.py:others"))
    with safe_open(model, "pt") as opened:
        noted = json.loads(opened.metadata()["snnprune.data"])
    assert noted == {
        "name": "own.py:noise",
        "validation": 0.0,
        "seed": 0,
        "evaluation": "own.py:others",
    }
    found = run("prune", model, "--data", "own.py:noise", *PRUNE)
    assert (found["after"]["images"], found["after"]["labelled"]) == ("train", 120)
    assert any("the network has learnt from all of them" in text for text in found["warnings"])
    found = run("eval", model, "--data", "own.py:noise")
    assert found["split"] == "train"


@pytest.mark.slow
def test_a_drop_that_every_network_holds_is_refused() -> None:
    flags = ["--data", "own.py:noise", "--max-accuracy-drop", "99", "-o", "a.safetensors"]
    with pytest.raises(UsageError, match="leaves nothing to hold: the dense network has") as caught:
        CliRunner().invoke(make_app(), ["prune", str(trained()), *flags], catch_exceptions=False)
    assert caught.value.field == "--max-accuracy-drop"
    assert not Path("a.safetensors").exists()


def test_what_statistics_in_a_file_are_of_is_no_test() -> None:
    model = str(trained())
    run("calibrate", model, "--data", "own.py:others", "-o", "c.safetensors")
    flags = ["--data", "own.py:noise", "--calibration", "c.safetensors"]
    error = refused("prune", model, *flags, "--test-data", "own.py:others", *PRUNE)
    assert error.message == "own.py:others is what the network learns from"
    assert not Path("p.safetensors").exists()
