"""Training by two processes of torchrun against training by one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.sweeps import run_seeds
from snnprune.jobs.train.train import JOBS
from snnprune.recipe.loading import load_recipe

TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "snnprune"),
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """23 images to train on in batches of 8: the last one cannot be halved."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2
    images = torch.rand(30, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
    test = {"x_test": images.roll(1, -1), "y_test": labels.clone()}
    save_file({"x": images, "y": labels, **test}, tmp_path / "images.safetensors")
    settings = {
        "model": {"name": "conv-snn", "args": {"width": 2, "depth": 2, "time_steps": 2}},
        "data": {"name": f"tensors:{tmp_path}/images.safetensors", "validation": 0.23},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "clip_norm": 1.0},
        "imp": {"methods": ["sf-imp-2"], "sparsities": [0.5], "rewind_epoch": 1},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def together(*arguments: object) -> list[str]:
    return [*TORCHRUN, *map(str, arguments), "--device", "cpu"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_find_the_tickets_of_one(recipe: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = LoopOptions(command="imp", recipe=load_recipe(str(recipe)), out=one, device="cpu")
    run_seeds(JOBS["imp"], alone)
    done = subprocess.run(
        together("imp", "--recipe", recipe, "--out", two, "-q"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"wrote {two}") == 1
    for folder in ("round-00", "round-01"):
        expected = load_file(one / folder / "model.safetensors")
        found = load_file(two / folder / "model.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)
    masks = [(out / "round-01" / "mask.safetensors").read_bytes() for out in (one, two)]
    assert masks[0] == masks[1]
    for expected_row, row in zip(rows(one), rows(two), strict=True):
        assert row.keys() == expected_row.keys()
        if row["kind"] == "ticket":
            assert row["layers"] == expected_row["layers"]
            assert row["test"]["samples"] == expected_row["test"]["samples"] == 30


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_run_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ("--set", "training.epochs=400")
    process = subprocess.Popen(
        together("train", "--recipe", recipe, "--out", out, *more),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob("state/*")):
        time.sleep(0.1)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    subprocess.run(["kill", f"-{signal.SIGUSR1.value}", children[1]], check=True)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert told.count("to go on: snnprune train --resume") == 1
    state = max(out.glob("state/*"))
    done = subprocess.run(
        together("train", "--resume", "--out", out), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"going on from {state}" in done.stderr
    assert (out / "DONE").exists()
