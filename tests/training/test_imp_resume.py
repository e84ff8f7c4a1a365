"""A run of `imp` that was stopped and taken up again is, to the bit, one that was left alone."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import recipe_for, write_images
from stopped_runs import results, stopped_after, stopped_after_every_step

from snnprune.errors import InputError, StoppedError
from snnprune.jobs.train import train
from snnprune.jobs.train.looping import LoopRun
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.train import imp_recipe, train_recipe
from snnprune.recipe.schema import Recipe

LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def shuffled():
    drawn = torch.Generator().manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.rand(12, 1, 6, 6, generator=drawn) + y.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
"""
IMP: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # training, imp
    "two methods": (
        {"epochs": 2, "batch_size": 6},
        {"methods": ["imp", "sf-imp-1"], "rewind_epoch": 1},
    ),
    "surgery, early bird, average": (
        {"epochs": 6, "batch_size": 12, "ema": 0.5, "learning_rate": 1.0},
        {"methods": ["sf-imp-2"], "surgery": "dns", "early_bird": 0.9},
    ),
    "tickets drawn from the dense run": (
        {"epochs": 7, "batch_size": 12, "ema": 0.5},
        {"methods": ["imp", "sf-imp-2"], "early_bird": 0.9, "early_bird_ends": "dense"},
    ),
    "tickets drawn late, their weights staying, fewer time steps": (
        {"epochs": 4, "batch_size": 12},
        {
            "early_bird": 0.01,
            "early_bird_ends": "dense",
            "rewind": "learning-rate",
            "rewind_epoch": 1,
            "early_time_steps": 1,
        },
    ),
    "learning rate, fewer time steps": (
        {"epochs": 2, "batch_size": 6, "optimizer": "adamw", "learning_rate": 0.01},
        {"rewind": "learning-rate", "rewind_epoch": 1, "early_time_steps": 1},
    ),
    "repair, statistics": (
        {"epochs": 2, "batch_size": 6},
        {"methods": ["sf-imp-2"], "repair": "bn", "rewind_statistics": False},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def without_pictures() -> Iterator[None]:
    """They take longer than the runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "draw_run", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def options(recipe: Recipe, out: Path, command: str = "imp") -> LoopOptions:
    return LoopOptions(command=command, recipe=recipe, out=out, device="cpu")


def small(images: Path, out: Path) -> LoopOptions:
    section = {"methods": ["imp", "sf-imp-1"], "sparsities": [0.5, 0.8], "rewind_epoch": 1}
    return options(recipe_for(images, {"epochs": 2}, imp=section), out)


def run(asked: LoopOptions) -> LoopRun:
    return (train_recipe if asked.command == "train" else imp_recipe)(asked)


def check(asked: LoopOptions, folder: Path) -> None:
    undisturbed, stopped = (replace(asked, out=folder / name) for name in ("alone", "stopped"))
    whole = run(undisturbed).report
    assert stopped_after_every_step(run, stopped) > 4
    expected, found = results(undisturbed.out), results(stopped.out)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    report = json.loads((stopped.out / "report.json").read_text())
    assert report["tickets"] == json.loads(json.dumps(whole["tickets"]))


@pytest.mark.many(1)
@pytest.mark.parametrize("name", IMP)
def test_stopped_after_every_single_step_it_ends_bit_identical(
    name: str, images: Path, tmp_path: Path
) -> None:
    training, section = IMP[name]
    recipe = recipe_for(images, training, imp={"sparsities": [0.5, 0.8], **section})
    check(options(recipe, tmp_path), tmp_path)


@pytest.mark.slow
def test_gradual_pruning_too(images: Path, tmp_path: Path) -> None:
    section = {"sparsity": 0.8, "steps": 4, "criterion": "sf"}
    recipe = recipe_for(images, {"ema": 0.5, "accumulate": 2}, gradual=section)
    check(options(recipe, tmp_path, "train"), tmp_path)


@pytest.mark.slow
def test_with_a_loader_of_the_users_that_shuffles_too(images: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LOADER)
    section = {"methods": ["sf-imp-1"], "sparsities": [0.5, 0.8], "repair": "bn", "samples": 7}
    recipe = recipe_for(images, {"epochs": 2}, imp=section)
    data = recipe.data.model_copy(
        update={"name": f"{tmp_path}/own.py:shuffled", "crop": 0, "flip": False}
    )
    args = {**recipe.model.args, "in_channels": 1, "size": 6, "classes": 2}
    model = recipe.model.model_copy(update={"args": args})
    asked = recipe.model_copy(update={"data": data, "model": model})
    check(options(asked, tmp_path), tmp_path)


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of `small` when nobody disturbs it."""
    asked = small(images, tmp_path_factory.mktemp("alone") / "run")
    run(asked)
    return results(asked.out)


def test_the_folder_of_a_run_holds_a_model_and_masks_for_every_round(
    expected: dict[str, bytes],
) -> None:
    rounds = [f"{method}/round-{n:02}" for method in ("imp", "sf-imp-1") for n in (1, 2)]
    files = [f"{r}/{kind}.safetensors" for r in rounds for kind in ("model", "mask")]
    assert set(expected) == {
        *("metrics.jsonl", "recipe.yaml", "round-00/model.safetensors"),
        *files,
    }


@pytest.mark.many(2)
@pytest.mark.parametrize("batch", [2, 8, 13, 17])
def test_a_damaged_newest_state_costs_no_bit(
    batch: int, images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    asked = small(images, tmp_path / "run")
    with stopped_after(batch), pytest.raises(StoppedError) as caught:
        run(asked)
    assert f"step {(batch - 1) % 3 + 1} of 3" in str(caught.value)
    states = sorted((asked.out / "state").iterdir())
    states[-1].write_bytes(states[-1].read_bytes()[:-1] + b"?")
    if len(states) == 1:
        with pytest.raises(InputError, match="no state is whole"):
            run(replace(asked, resume=True))
        return
    found = run(replace(asked, resume=True)).report
    assert results(asked.out) == expected
    assert len(found["warnings"]) == 1
    assert "does not fit its hash" in found["warnings"][0]


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_stop_tells_the_method_and_the_sparsity(batch: int, images: Path, tmp_path: Path) -> None:
    with stopped_after(batch), pytest.raises(StoppedError) as caught:
        run(small(images, tmp_path / "run"))
    names = {1: "dense, epoch 1", 4: "dense, epoch 2", 16: "sf-imp-1 80.0%, epoch 1"}
    assert f"in {names[batch]} after step 1 of 3" in str(caught.value)


def test_a_changed_section_is_refused_with_every_difference(images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    with stopped_after(8), pytest.raises(StoppedError):
        run(asked)
    before = results(asked.out)
    changes = {"methods": ("imp", "random"), "rewind_epoch": 0}
    assert asked.recipe.imp is not None
    section = asked.recipe.imp.model_copy(update=changes)
    changed = asked.recipe.model_copy(update={"imp": section})
    with pytest.raises(InputError) as caught:
        run(replace(asked, recipe=changed, resume=True))
    told = str(caught.value)
    assert "imp.methods" in told
    assert "imp.rewind_epoch: 1 in the run, 0 now" in told
    assert "sparsities" not in told
    assert results(asked.out) == before


def test_a_run_that_only_had_to_finish_measures_and_ends(
    images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    asked = small(images, tmp_path / "run")
    run(asked)
    (asked.out / "DONE").unlink()
    (asked.out / "sf-imp-1/round-02/model.safetensors").unlink()
    run(replace(asked, resume=True))
    assert results(asked.out) == expected


def test_force_leaves_nothing_of_another_run(images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    run(asked)
    assert asked.recipe.imp is not None
    section = asked.recipe.imp.model_copy(update={"methods": ("random",)})
    other = asked.recipe.model_copy(update={"imp": section})
    run(replace(asked, recipe=other, force=True))
    models = {str(path.relative_to(asked.out)) for path in asked.out.rglob("model.safetensors")}
    assert models == {f"round-{number:02}/model.safetensors" for number in range(3)}


def test_what_a_killed_process_was_writing_is_swept_from_the_rounds_too(
    images: Path, tmp_path: Path
) -> None:
    asked = small(images, tmp_path / "run")
    with stopped_after(16), pytest.raises(StoppedError):
        run(asked)
    for folder in ("round-00", "imp/round-01", "sf-imp-1/round-01", "state"):
        (asked.out / folder / ".snnprune-abc.tmp").write_bytes(b"half")
    run(replace(asked, resume=True))
    assert not list(asked.out.rglob("*.tmp"))
