"""A recipe's grid, and the recipes of the paper's figures at a size for a CPU."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cifar_files import write_set
from safetensors.torch import save_file
from stopped_runs import results, stopped_after
from valid_reports import assert_valid

from snnprune.errors import InputError, StoppedError
from snnprune.jobs.train import train
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.sweeps import GridResult, run_grid
from snnprune.jobs.train.train import JOBS
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import expand_grid

Run = Callable[..., Any]
NETWORK = """
from snnprune.models.networks import conv_snn

def build(in_channels, size, classes, time_steps):
    args = {"in_channels": in_channels, "size": size, "classes": classes}
    return conv_snn(**args, time_steps=time_steps, width=2, depth=2)
"""
SMALL = (
    *("training.epochs=2", "training.batch_size=8", "training.learning_rate=0.05"),
    *("training.precision=off", "model.args.time_steps=1", "data.crop=1", "data.cutout=2"),
)
ROUNDS = ("imp.rounds=2", "imp.rewind_epoch=1", "imp.round_epochs=1")


@pytest.fixture(autouse=True)
def without_their_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each run take longer than the runs."""
    monkeypatch.setattr(train, "draw_run", lambda *_: [])


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Two data sets of 16 images of 8 x 8, and two networks; the first of each by its name."""
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "more.py").write_text(NETWORK)
    found = {"net": f"{tmp_path}/nets.py:build", "more": f"{tmp_path}/more.py:build"}
    for number, name in enumerate(("one", "two")):
        draws, y = torch.Generator().manual_seed(number), torch.arange(16) % 2
        x = torch.rand(16, 1, 8, 8, generator=draws) + y.view(-1, 1, 1, 1)
        path = tmp_path / f"{name}.pt"
        save_file({"x": x, "y": y, "x_test": x.roll(1, -1), "y_test": y.clone()}, path)
        path.rename(tmp_path / name)
        found[name] = f"tensors:{tmp_path / name}"
    return found


def settings(places: dict[str, str], models: tuple[str, ...], *more: str) -> list[str]:
    """That make a recipe of a figure small: these networks, on both data sets."""
    named = {
        "model.name": json.dumps(places[models[0]]),
        "data.name": json.dumps(places["one"]),
        "grid.models": json.dumps([places[model] for model in models]),
        "grid.data": json.dumps([places["one"], places["two"]]),
    }
    return [*(f"{name}={value}" for name, value in named.items()), *SMALL, *more]


def figure(number: int, places: dict[str, str], out: Path, *more: str) -> LoopOptions:
    """The recipe of a figure, small."""
    models = ("net", "more") if number == 3 else ("net",)
    run = "search" if number == 3 else "imp"
    changed = settings(places, models, *(ROUNDS if number == 5 else ()), *more)
    recipe = load_recipe(f"paper-figure-{number}", changed, run=(run,))
    return LoopOptions(command=run, recipe=recipe, out=out, device="cpu")


def grid(options: LoopOptions) -> GridResult:
    return run_grid(JOBS[options.command], options)


def methods(found: GridResult) -> dict[str, list[tuple[str, float]]]:
    """What each run has a point of, the dense network first."""
    return {
        one["folder"]: [
            (point["method"], round(point["sparsity_asked"], 4))
            for point in (one["summary"]["dense"], *one["summary"]["points"])
        ]
        for one in found.report["runs"]
    }


@pytest.mark.slow
def test_figure_3_is_untrained_sub_networks_beside_the_trained_network_for_each_pair(
    places: dict[str, str], tmp_path: Path
) -> None:
    found = grid(figure(3, places, tmp_path / "run"))
    assert_valid(dict(found.report))
    points = [("dense", 0.0), *(("edge-popup", share) for share in (0.1, 0.3, 0.5, 0.7, 0.9))]
    pairs = [f"{net}.py-build-{data}" for net in ("nets", "more") for data in ("one", "two")]
    assert methods(found) == dict.fromkeys(pairs, points)
    assert all(one["summary"]["accuracies_on"] == "test" for one in found.report["runs"])
    for name in ("accuracy.png", "accuracy.svg", "table.md", "report.html", "report.md", "DONE"):
        assert (tmp_path / "run" / name).exists(), name
    check = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    for folder in ("", *pairs):
        subprocess.run(check, cwd=tmp_path / "run" / folder, capture_output=True, check=True)
    listed = (tmp_path / "run" / "SHA256SUMS").read_text().split()
    assert {f"{pair}/SHA256SUMS" for pair in pairs} < set(listed)
    page = (tmp_path / "run" / "report.md").read_text()
    assert page.count(": test accuracy; dense ") == 4
    table = (tmp_path / "run" / "table.md").read_text()
    assert table.count("edge-popup") == 4
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()
    written = json.loads((tmp_path / "run" / "report.json").read_text())
    assert written == json.loads(json.dumps(found.report))


@pytest.mark.slow
def test_figure_5_is_all_methods_from_one_dense_network_for_each_pair(
    places: dict[str, str], tmp_path: Path
) -> None:
    found = grid(figure(5, places, tmp_path / "run"))
    assert_valid(dict(found.report))
    names = ("imp", "sf-imp-1", "sf-imp-2")
    points = [("dense", 0.0), *((name, share) for name in names for share in (0.25, 0.4375))]
    assert methods(found) == {f"nets.py-build-{data}": points for data in ("one", "two")}
    rows = (tmp_path / "run/nets.py-build-one/metrics.jsonl").read_text().splitlines()
    epochs = [row for row in map(json.loads, rows) if row["kind"] == "epoch"]
    assert len(epochs) == 2 + 3 * 2 * 1
    assert {row["validation_accuracy"] for row in epochs} == {None}  # nothing is chosen


@pytest.mark.slow
def test_a_run_of_the_grid_is_to_the_bit_one_that_is_run_alone(
    places: dict[str, str], tmp_path: Path
) -> None:
    options = figure(5, places, tmp_path / "run")
    grid(options)
    name = "nets.py-build-two"
    alone = replace(options, recipe=expand_grid(options.recipe)[name], out=tmp_path / "alone")
    JOBS["imp"](alone, *_silent())
    assert results(tmp_path / "run" / name) == results(tmp_path / "alone")


@pytest.mark.slow
def test_a_grid_that_was_stopped_goes_on_in_the_run_at_hand(
    places: dict[str, str], tmp_path: Path
) -> None:
    alone, stopped = (figure(5, places, tmp_path / name) for name in ("alone", "stopped"))
    grid(alone)
    batches = 2 * 2 + 6 * 2  # of a run: two dense epochs and six of rounds, two batches each
    with stopped_after(batches + 5), pytest.raises(StoppedError) as caught:
        grid(stopped)
    assert f"--resume --out {stopped.out}" in str(caught.value.hint)
    assert str(caught.value.hint).endswith("stopped --device cpu")
    assert not (stopped.out / "DONE").exists()
    found = grid(replace(stopped, resume=True))
    assert [sweep.finished_before for sweep in found.runs.values()] == [True, False]
    for name in found.runs:
        assert results(stopped.out / name) == results(alone.out / name)
    assert grid(replace(stopped, resume=True)).finished_before


@pytest.mark.slow
def test_runs_of_other_machines_are_brought_together(
    places: dict[str, str], tmp_path: Path
) -> None:
    options = figure(5, places, tmp_path / "run")
    for name, recipe in expand_grid(options.recipe).items():
        JOBS["imp"](replace(options, recipe=recipe, out=options.out / name), *_silent())
    found = grid(replace(options, resume=True))
    assert found.finished_before
    assert len(found.report["runs"]) == 2


@pytest.mark.slow
def test_every_pair_has_its_seeds(places: dict[str, str], tmp_path: Path) -> None:
    found = grid(figure(5, places, tmp_path / "run", "imp.methods=[imp]", "seeds=[0, 1]"))
    assert_valid(dict(found.report))
    assert [one["summary"]["seeds"] for one in found.report["runs"]] == [2, 2]
    assert (tmp_path / "run/nets.py-build-two/seed-1/round-01/mask.safetensors").exists()


def test_train_has_a_grid_too_with_nothing_to_draw(places: dict[str, str], tmp_path: Path) -> None:
    options = replace(figure(5, places, tmp_path / "run"), command="train")
    found = grid(options)
    assert_valid(dict(found.report))
    assert [one["summary"]["points"] for one in found.report["runs"]] == [[], []]
    assert all(one["summary"]["dense"] for one in found.report["runs"])
    assert (found.report["outputs"], (options.out / "DONE").exists()) == ([], True)


def test_data_that_only_the_last_run_needs_are_missed_before_the_first(
    places: dict[str, str], tmp_path: Path
) -> None:
    options = figure(5, places, tmp_path / "run")
    (tmp_path / "two").unlink()
    with pytest.raises(InputError, match="two"):
        grid(options)
    assert not options.out.exists()


@pytest.mark.slow
def test_the_command_shows_a_table_for_each_pair_and_tries_them_all_before(
    places: dict[str, str], tmp_path: Path, run: Run, as_json: Callable[..., Any]
) -> None:
    given = [word for text in settings(places, ("net",), *ROUNDS) for word in ("--set", text)]
    asked = ("imp", "--recipe", "paper-figure-5", *given, "--out", tmp_path / "run")
    told = as_json(run(*asked, "--dry-run", "--json"))
    assert [one["dry_run"]["epochs"] for one in told["runs"]] == [8, 8]
    shown = run(*asked, "--dry-run").stdout
    assert "all 2: 16 epochs, about " in shown
    assert not (tmp_path / "run").exists()
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    for name in ("nets.py-build-one", "nets.py-build-two"):
        assert f"\n{name}\n" in f"\n{done.stdout}"
        assert (tmp_path / "run" / name / "DONE").exists()
    assert done.stdout.count("sf-imp-2") == 2
    again = run(*asked, "--resume")
    assert "holds a finished run: nothing to do" in again.stdout
    assert run(*asked).returncode == 5


def test_finetune_has_one_network_and_refuses_a_grid(
    places: dict[str, str], tmp_path: Path, run: Run
) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    given = [word for text in settings(places, ("net",)) for word in ("--set", text)]
    done = run("finetune", tmp_path / "x.safetensors", "--recipe", "paper-figure-5", *given)
    assert done.returncode == 3
    assert "grid: finetune is for one network on one data set" in done.stderr
    assert load_recipe("paper-figure-5", ["grid=null"]).grid is None


@pytest.mark.slow
@pytest.mark.parametrize(("number", "command", "runs"), [(3, "search", 4), (5, "imp", 2)])
def test_the_networks_of_the_figures_are_tried_on_files_of_the_true_form(
    number: int,
    command: str,
    runs: int,
    run: Run,
    as_json: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("cifar10", "cifar100"):
        write_set(name, tmp_path, monkeypatch)
    small = ("--set", "training.batch_size=2", "--set", "model.args.time_steps=1")
    asked = (command, "--recipe", f"paper-figure-{number}", "--data-root", tmp_path, *small)
    told = as_json(run(*asked, "--out", tmp_path / "run", "--dry-run", "--json"))["runs"]
    assert len(told) == runs
    for one in told:
        estimate = one["dry_run"]
        assert estimate["images"]["validation"] == 0
        assert estimate["prunable"] > 10**7
        assert estimate["epochs"] == (6 * 300 if number == 3 else 300 + 42 * 280)


def _silent() -> tuple[Any, Any]:
    from snnprune.runtime import SILENT

    return SILENT, lambda _: None
