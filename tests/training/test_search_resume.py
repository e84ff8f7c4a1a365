"""A run of `search` that was stopped and taken up again is, to the bit, one left alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import recipe_for, write_images
from stopped_runs import results, stopped_after, stopped_after_every_step

from snnprune.errors import InputError, StoppedError
from snnprune.jobs.train import train
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.train import search_recipe
from snnprune.recipe.schema import Recipe

OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from snnprune.models.networks import conv_snn

class Scaled(nn.Module):
    \"\"\"Weights that no seed of torch's brings back, a count of its batches, dropout.\"\"\"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(START))
        self.register_buffer("batches", torch.zeros(()))
        self.dropout = nn.Dropout(0.5)
        self.body = conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)

    def forward(self, x):
        if self.training:
            self.batches += 1
        return self.body(self.dropout(x * self.scale) + self.batches / 10)

def build():
    return Scaled()

def images():
    drawn = torch.Generator().manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.rand(12, 1, 6, 6, generator=drawn) + y.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
"""
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # training, search
    "after the dense network": ({"epochs": 2}, {"dense": True}),
    "average, epochs of its own": ({"ema": 0.5, "batch_size": 6}, {"epochs": 2, "dense": True}),
    "adamw, normal weights": (
        {"epochs": 2, "optimizer": "adamw", "learning_rate": 0.01},
        {"weights": "kaiming-normal"},
    ),
    "bf16, channels last": ({"epochs": 2, "precision": "bf16", "channels_last": True}, {}),
}


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr(train, "draw_run", lambda *_: [])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: dict[str, Any] | None = None, **section: Any) -> Recipe:
    return recipe_for(images, training, search={"sparsities": [0.5, 0.8], **section})


def options(asked: Recipe, out: Path) -> LoopOptions:
    return LoopOptions(command="search", recipe=asked, out=out, device="cpu")


def small(images: Path, out: Path) -> LoopOptions:
    return options(recipe(images, {"epochs": 1}, dense=True), out)


@pytest.mark.many(1)
@pytest.mark.parametrize("name", RUNS)
def test_stopped_after_every_single_step_it_ends_bit_identical(
    name: str, images: Path, tmp_path: Path
) -> None:
    training, section = RUNS[name]
    asked = recipe(images, training, **section)
    alone, stopped = (options(asked, tmp_path / name) for name in ("alone", "stopped"))
    whole = search_recipe(alone).report
    assert stopped_after_every_step(search_recipe, stopped) > 4
    assert results(stopped.out) == results(alone.out)
    found = json.loads((stopped.out / "report.json").read_text())
    assert found["tickets"] == json.loads(json.dumps(whole["tickets"]))


def test_a_network_and_a_loader_of_the_users_too(images: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    asked = recipe(images, {"epochs": 2}, dense=True)
    model = asked.model.model_copy(update={"name": f"{own}:build", "args": {}})
    data = asked.data.model_copy(update={"name": f"{own}:images", "crop": 0, "flip": False})
    asked = asked.model_copy(update={"model": model, "data": data})
    alone, stopped = (options(asked, tmp_path / name) for name in ("alone", "stopped"))
    own.write_text(OWN.replace("START", "0.5"))
    search_recipe(alone)
    with stopped_after(8), pytest.raises(StoppedError):  # in the first search
        search_recipe(stopped)
    own.write_text(OWN.replace("START", "0.7"))
    search_recipe(replace(stopped, resume=True))
    assert results(stopped.out) == results(alone.out)


def test_a_folder_for_every_sparsity_with_its_hashes(images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    search_recipe(asked)
    expected = {
        "dense/model.safetensors",
        *(
            f"sparsity-{sparsity}/{kind}.safetensors"
            for sparsity in (0.5, 0.8)
            for kind in ("model", "mask")
        ),
        *("metrics.jsonl", "recipe.yaml"),
    }
    assert set(results(asked.out)) == expected
    sums = (asked.out / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in sums} == expected | {
        "report.json",
        "report.html",
        "report.md",
    }


def test_force_leaves_nothing_of_another_run(images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    search_recipe(asked)
    other = recipe(images, {"epochs": 1}, sparsities=[0.7])
    search_recipe(replace(asked, recipe=other, force=True))
    models = {str(path.relative_to(asked.out)) for path in asked.out.rglob("model.safetensors")}
    assert models == {"sparsity-0.7/model.safetensors"}


@pytest.mark.parametrize(
    ("batch", "where"),
    [(2, "dense, epoch 1"), (4, "edge-popup 50.0%, epoch 1"), (9, "edge-popup 80.0%, epoch 1")],
)
def test_a_stop_tells_the_sparsity(batch: int, where: str, images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    with stopped_after(batch), pytest.raises(StoppedError) as caught:
        search_recipe(asked)
    assert f"in {where} after step {(batch - 1) % 3 + 1} of 3" in str(caught.value)
    assert f"snnprune search --resume --out {asked.out}" in str(caught.value)


def test_a_changed_section_is_refused_with_every_difference(images: Path, tmp_path: Path) -> None:
    asked = small(images, tmp_path / "run")
    with stopped_after(5), pytest.raises(StoppedError):
        search_recipe(asked)
    before = results(asked.out)
    changed = recipe(images, {"epochs": 1}, dense=True, sparsities=[0.5], weights="kaiming-normal")
    with pytest.raises(InputError) as caught:
        search_recipe(replace(asked, recipe=changed, resume=True))
    told = str(caught.value)
    assert "search.sparsities" in told
    assert "search.weights: signed-constant in the run, kaiming-normal now" in told
    assert "search.dense" not in told
    assert results(asked.out) == before
