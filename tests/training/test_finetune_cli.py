"""`snnprune finetune` as a user meets it, with a network and batches of their own."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

Run = Callable[..., Any]
OWN = """
import torch
from snnprune.models.networks import conv_snn

def net():
    return conv_snn(in_channels=1, size=6, classes=2, width=4, depth=2, time_steps=2)

def batches():
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + y.view(-1, 1, 1, 1)
    return list(zip(x.split(4), y.split(4)))
"""
RECIPE = """
model: {{name: "{own}:net"}}
data: {{name: "{own}:batches", validation: 0}}
training: {{epochs: 2, batch_size: 4, learning_rate: 0.05}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def recipe(own: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(own=own))
    return path


@pytest.fixture
def dense(recipe: Path, run: Run, tmp_path: Path) -> Path:
    done = run("train", "--recipe", recipe, "--trust-recipe", "--out", tmp_path / "dense", "-q")
    assert done.returncode == 0, done.stderr
    return tmp_path / "dense" / "model.safetensors"


@pytest.fixture
def pruned(dense: Path, own: Path, run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "pruned.safetensors"
    given = ("--model", f"{own}:net", "--data", f"{own}:batches", "--criterion", "magnitude")
    done = run("prune", dense, *given, "--sparsity", "0.5", "-o", path, "-q")
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.slow
def test_a_network_of_ones_own_is_pruned_and_trained_on_for_several_seeds(
    pruned: Path, dense: Path, recipe: Path, run: Run, as_json: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = (
        "finetune",
        pruned,
        "--teacher",
        dense,
        "--recipe",
        recipe,
        "--trust-recipe",
        "--out",
        out,
    )
    done = run(*asked, "--seeds", "0,1")
    assert done.returncode == 0, done.stderr
    assert "holding 50.00% of " in done.stderr
    assert "masks of pruned.mask.safetensors" in done.stderr
    assert "finetuned" in done.stdout
    assert "deviation of 2 seeds" in done.stdout
    assert {path.name for path in out.glob("seed-*")} == {"seed-0", "seed-1"}
    found = as_json(run("inspect", out / "seed-1" / "model.safetensors", "--json"))
    before = as_json(run("inspect", pruned, "--json"))
    assert found["totals"]["pruned"] == before["totals"]["pruned"] > 0
    again = run(*asked, "--seeds", "0,1", "--resume")
    assert "holds a finished run: nothing to do" in again.stdout


def test_what_is_missing_is_told(pruned: Path, recipe: Path, run: Run, tmp_path: Path) -> None:
    assert run("finetune", pruned).returncode == 2
    done = run(
        "finetune",
        pruned,
        "--recipe",
        recipe,
        "--trust-recipe",
        "--teacher",
        tmp_path / "gone.safetensors",
    )
    assert done.returncode == 3
    assert "gone.safetensors: no such file" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("unrendered")
def test_the_recipe_of_the_run_is_enough_to_resume_it(
    pruned: Path, recipe: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "a run"
    assert (
        run("finetune", pruned, "--recipe", recipe, "--trust-recipe", "--out", out, "-q").returncode
        == 0
    )
    (out / "DONE").unlink()
    (out / "model.safetensors").unlink()
    command = f"finetune {shlex.quote(str(pruned))} --resume --out {shlex.quote(str(out))} -q"
    done = run(*shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").exists()


@pytest.mark.slow
def test_masks_that_a_crash_left_beside_another_file_are_refused(
    dense: Path, pruned: Path, recipe: Path, run: Run, tmp_path: Path
) -> None:
    flags = ("--criterion", "magnitude", "--sparsity", "0.3", "-q", "-o")
    assert run("prune", dense, *flags, tmp_path / "other.safetensors").returncode == 0
    masks = pruned.with_name("pruned.mask.safetensors")
    shutil.copy(tmp_path / "other.mask.safetensors", masks)  # they keep more than is not 0
    given = ("finetune", pruned, "--recipe", recipe, "--trust-recipe", "-q", "--out")
    done = run(*given, tmp_path / "refused")
    assert done.returncode == 3
    assert f"{masks}: was written with another file than pruned.safetensors is now" in done.stderr
    done = run(*given, tmp_path / "asked", "--masks", masks)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_masks_beside_the_same_network_in_another_file_are_held(
    pruned: Path, recipe: Path, run: Run, tmp_path: Path
) -> None:
    save_file(load_file(pruned), pruned)  # without its metadata
    done = run(
        "finetune", pruned, "--recipe", recipe, "--trust-recipe", "-q", "--out", tmp_path / "tuned"
    )
    assert done.returncode == 0, done.stderr
