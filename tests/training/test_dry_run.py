"""`--dry-run`: its counts against those of a real run, and nothing written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cifar_files import write_set
from safetensors.torch import save_file

from snnprune.jobs.train import train
from snnprune.training.step import Trainer

Run = Callable[..., Any]
SETTINGS: dict[str, Any] = {
    "model": {"name": "conv-snn", "args": {"width": 2, "depth": 2, "time_steps": 3}},
    "data": {"validation": 0.25},
    "training": {"epochs": 3, "batch_size": 4, "learning_rate": 0.05},
    "imp": {"methods": ["imp", "sf-imp-1"], "sparsities": [0.5, 0.81], "rewind_epoch": 1},
    "search": {"sparsities": [0.3, 0.77], "dense": True, "epochs": 2},
    "finetune": {"epochs": 2},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """`recipe(imp={...})` writes the recipe with these settings in its sections."""
    images, draws = tmp_path / "images.safetensors", torch.Generator().manual_seed(0)
    x, y = torch.rand(16, 1, 6, 6, generator=draws), torch.arange(16) % 2
    save_file({"x": x, "y": y, "x_test": x.roll(1, -1), "y_test": y.clone()}, images)

    def write(**sections: Any) -> Path:
        found = {name: {**SETTINGS.get(name, {})} for name in {**SETTINGS, **sections}}
        found["data"]["name"] = f"tensors:{images}"
        for name, settings in sections.items():
            found[name] |= settings
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(found))
        return path

    return write


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that is taken."""
    taken: list[int] = []
    train_on = Trainer.train_on

    def counting(self: Trainer, *batch: Any) -> tuple[float, int]:
        taken.append(1)
        return train_on(self, *batch)

    monkeypatch.setattr(Trainer, "train_on", counting)
    return taken


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def size_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def checkpoint(run: Run, recipe: Path, tmp_path: Path) -> Path:
    """A pruned checkpoint of a run of `recipe`."""
    done = run("train", "--recipe", recipe, "--out", tmp_path / "dense", "--quiet")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "pruned.safetensors"
    given = ("--data", f"tensors:{tmp_path / 'images.safetensors'}", "--criterion", "magnitude")
    model = tmp_path / "dense" / "model.safetensors"
    done = run("prune", model, "--sparsity", "0.6", *given, "-o", path, "--quiet")
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("command", "sections"),
    [
        ("train", {}),
        ("train", {"gradual": {"sparsity": 0.6, "steps": 3}}),
        ("imp", {"imp": {"early_time_steps": 2}}),
        ("imp", {"imp": {"early_bird": 0.001, "early_bird_ends": "dense"}}),
        ("search", {}),
        ("finetune", {}),
    ],
)
def test_it_counts_what_the_run_then_does(
    command: str,
    sections: dict[str, Any],
    recipe: Callable[..., Path],
    run: Run,
    as_json: Callable[..., Any],
    steps: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, out = recipe(**sections), tmp_path / "run"
    named = [checkpoint(run, path, tmp_path)] if command == "finetune" else []
    asked = (command, *named, "--recipe", path, "--out", out, "--json", "-q")
    before = set(tmp_path.rglob("*"))
    monkeypatch.setattr(train, "draw_run", lambda *_: [])  # pictures take long
    report = as_json(run(*asked, "--dry-run"))
    assert set(tmp_path.rglob("*")) == before
    told = report["dry_run"]
    steps.clear()
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    epochs = [row for row in rows(out) if row["kind"] == "epoch"]
    tickets = [row for row in rows(out) if row["kind"] == "ticket" and row["method"] != "pruned"]
    assert (told["epochs"], told["steps"]) == (len(epochs), len(steps))
    assert told["steps_per_epoch"] == 3
    assert told["images"] == {"train": 12, "validation": 4, "test": 16}
    assert told["prunable"] == tickets[0]["prunable"]
    assert told["parameters"] == tickets[0]["parameters"]
    assert [(one["method"], one["round"], one["kept"]) for one in told["trainings"]] == [
        (row["method"], row["round"], row["prunable"] - row["pruned"]) for row in tickets
    ]
    headers = 8192  # of the files, which hold the names of the tensors
    results = size_of(out, "**/model.safetensors") + size_of(out, "**/mask.safetensors")
    results += size_of(out, "best.safetensors")
    assert told["result_bytes"] <= results <= told["result_bytes"] + headers * len(tickets)
    states = size_of(out, "state/*")
    assert 0.6 * states - 2 * headers <= told["state_bytes"] <= 1.2 * states
    assert min(told["seconds_per_step"], told["seconds_per_evaluated_batch"]) > 0
    assert told["seconds"] > told["seconds_per_step"] * told["steps"] * 2 / 3
    assert told["peak_bytes"] > 10**6


@pytest.mark.slow
def test_several_seeds_take_as_many_times_as_long(
    recipe: Callable[..., Path], run: Run, as_json: Callable[..., Any], tmp_path: Path
) -> None:
    asked = ("train", "--recipe", recipe(), "--dry-run", "--out", tmp_path / "run")
    told = as_json(run(*asked, "--seeds", "3,4,5", "--json"))["dry_run"]
    assert (told["runs"], told["epochs"], told["steps"]) == (3, 9, 27)
    shown = run(*asked, "--seeds", "3,4,5").stdout
    assert "3 runs, 9 epochs, 27 steps of " in shown
    assert "16 test; 3 steps an epoch" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "sections", "code", "told"),
    [
        ("train", {"model": {"name": "conv-sn"}}, 3, "conv-sn"),
        ("imp", {"imp": {"methods": ["magnitud"]}}, 3, "imp.methods: "),
        ("imp", {"imp": {"allocation": "glob"}}, 3, "imp.allocation: "),
        ("train", {"gradual": {"sparsity": 0.5, "criterion": "sff"}}, 3, "gradual.criterion: "),
        ("train", {"training": {"learning_rate": 1e30, "epochs": 3}}, 6, "is not finite"),
    ],
)
def test_what_would_fail_fails_now(
    command: str,
    sections: dict[str, Any],
    code: int,
    told: str,
    recipe: Callable[..., Path],
    run: Run,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    done = run(command, "--recipe", recipe(**sections), "--dry-run", "--out", out)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_folder_that_is_taken_is_refused_and_left(
    recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    asked = ("train", "--recipe", recipe(), "--out", out, "--dry-run")
    assert run(*asked).returncode == 5
    assert run(*asked, "--force").returncode == 0
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert run(*asked, "--resume").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"),
    [("train", "smoke"), ("imp", "fashion-mnist-mini"), ("search", "fashion-mnist-mini")],
)
def test_it_tries_every_recipe_whose_images_are_bundled(
    command: str, name: str, run: Run, as_json: Callable[..., Any], tmp_path: Path
) -> None:
    asked = (command, "--recipe", name, "--dry-run", "--out", tmp_path / "run", "--json")
    told = as_json(run(*asked))["dry_run"]
    assert told["images"]["test"] == 1000
    assert told["steps"] == told["epochs"] * told["steps_per_epoch"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_tries_a_large_recipe_on_files_of_the_true_form(
    run: Run, as_json: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = write_set("cifar10", tmp_path, monkeypatch), tmp_path / "run"
    small = ("--set", "training.batch_size=2", "--set", "model.args.time_steps=1")
    asked = ("--recipe", "cifar10", "--data-root", tmp_path, *small, "--out", out, "--json")
    told = as_json(run("train", *asked, "--dry-run"))["dry_run"]
    assert told["images"] == {"train": 90, "validation": 10, "test": 20}
    assert (told["epochs"], told["steps"]) == (300, 300 * 45)
    assert told["prunable"] > 10**7
    assert files.exists()
    assert not out.exists()
