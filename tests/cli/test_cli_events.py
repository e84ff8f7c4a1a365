"""Every command on recordings of several lengths, and what padding would have spoilt."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.data import DataOptions, open_data
from snnprune.models import ModelSpec, build_model

Run = Callable[..., subprocess.CompletedProcess[str]]
ARGS = {"in_channels": 2, "size": 8, "classes": 2, "width": 4, "depth": 2, "time_steps": 1}


def write_recordings(folder: Path) -> None:
    """Bars that move down or across, 3 to 6 frames of 2 x 8 x 8."""
    draws = np.random.RandomState(0)
    for part, count in (("train", 24), ("test", 10)):
        for number in range(count):
            label, steps = number % 2, draws.randint(3, 7)
            frames = draws.poisson(0.1, (steps, 2, 8, 8))
            for step in range(steps):
                where = (slice(None), step + 1) if label else (step + 1, slice(None))
                frames[step, 0][where] += 2
            place = folder / part / str(label) / f"{number}.npz"
            place.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(place, frames=frames.astype(np.float32))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder)
    return folder


def write_recipe(path: Path, events: Path, **training: Any) -> Path:
    recipe = {
        "model": {"name": "conv-snn", "args": {"width": 4, "depth": 2}},
        "data": {"name": f"frames:{events}", "validation": 0.25},
        "training": {"epochs": 2, "batch_size": 5, "learning_rate": 0.1, **training},
        "imp": {"methods": ["sf-imp-1"], "sparsities": [0.5], "samples": 12},
        "search": {"sparsities": [0.5]},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def done(run: Run, *arguments: Any) -> subprocess.CompletedProcess[str]:
    found = run(*map(str, arguments))
    assert found.returncode == 0, found.stderr
    return found


def told(run: Run, *arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(run, *arguments, "--json").stdout)
    return found


@pytest.mark.usefixtures("unrendered")
def test_the_commands_of_a_checkpoint_take_recordings_of_several_lengths(
    run: Run, events: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", events)
    done(run, "train", "--recipe", recipe, "--out", tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    data = ("--data", f"frames:{events}", "--samples", "12")
    done(run, "inspect", model, *data[:2])
    done(run, "calibrate", model, *data, "-o", tmp_path / "c.safetensors")
    done(run, "score", model, *data, "--criterion", "sf", "-o", tmp_path / "s.safetensors")
    for name, how in (("a", ("--no-tune",)), ("b", ("--tune-steps", "2"))):
        out = tmp_path / f"{name}.safetensors"
        report = told(run, "prune", model, *data, "--sparsity", "0.6", *how, "-o", out)
        assert report["after"]["time_steps"] is None
        assert report["after"]["samples"] == 10
    done(run, "finetune", out, "--recipe", recipe, "--out", tmp_path / "f")
    done(run, "export", out, "--to", "packed", "-o", tmp_path / "p.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["imp", "search"])
def test_tickets_are_found_on_recordings_of_several_lengths(
    run: Run, events: Path, tmp_path: Path, command: str
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", events, loss="tet")
    done(run, command, "--recipe", recipe, "--out", tmp_path / "run")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("network") / "net.pth"
    torch.save(build_model(ModelSpec(name="conv-snn", args=ARGS)).state_dict(), path)
    return path


def flags(events: Path) -> list[str]:
    args = [f for name, value in ARGS.items() for f in ("--model-arg", f"{name}={value}")]
    return ["--model", "conv-snn", *args, "--data", f"frames:{events}"]


def test_what_is_measured_is_that_of_each_recording_by_itself(
    run: Run, events: Path, model_file: Path
) -> None:
    together, alone = (
        told(run, "eval", model_file, *flags(events), "--batch-size", size) for size in (16, 1)
    )
    module = build_model(ModelSpec(name="conv-snn", args=ARGS)).eval()
    module.load_state_dict(read_checkpoint(model_file).tensors)
    right, loss, spikes, places = 0, 0.0, 0.0, 0

    def count(_: object, __: object, output: torch.Tensor) -> None:
        nonlocal spikes, places
        spikes, places = spikes + float(output.sum()), places + output.numel()

    module.get_submodule("encoder.neuron").register_forward_hook(count)
    for path in sorted(events.glob("test/*/*.npz")):
        label = torch.tensor([int(path.parent.name)])
        with torch.no_grad():
            steps = module(torch.from_numpy(np.load(path)["frames"]).unsqueeze(1))
        right += int(steps.sum(0).argmax(1) == label)
        by_step = [torch.nn.functional.cross_entropy(step, label) for step in steps]
        loss += float(torch.stack(by_step).mean()) / 10
    for report in (together, alone):
        found = report["evaluation"]
        assert found["accuracy"] == right / 10
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        (rate,) = (row["firing_rate"] for row in report["layers"] if row["encoding"])
        assert rate == pytest.approx(spikes / places)
    assert together["workload"] == alone["workload"]


def test_statistics_do_not_depend_on_which_recordings_lie_together(
    run: Run, events: Path, model_file: Path, tmp_path: Path
) -> None:
    found = []
    for size in (16, 1):
        out = tmp_path / f"{size}.safetensors"
        done(run, "calibrate", model_file, *flags(events), "--batch-size", size, "-o", out)
        found.append(read_checkpoint(out).tensors)
    together, alone = found
    assert together.keys() == alone.keys()
    for key, values in together.items():
        assert torch.allclose(values.double(), alone[key].double(), equal_nan=True), key


def test_a_network_that_repeats_is_refused_and_a_warning_says_that_t_is_a_mean(
    run: Run, events: Path, model_file: Path, tmp_path: Path
) -> None:
    refused = run("eval", str(model_file), *flags(events), "--forward", "repeat:3")
    assert refused.returncode == 2
    assert "repeat:3 would repeat frames:" in refused.stderr
    out = tmp_path / "c.safetensors"
    said = done(run, "calibrate", model_file, *flags(events), "-o", out).stderr
    assert "batches have 3 to 6 time steps; T = 4 is the mean" in said


def test_time_steps_that_the_data_have_themselves_are_not_set_in_a_recipe(
    run: Run, events: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", events)
    out = ("--out", str(tmp_path / "run"))
    refused = run("train", "--recipe", str(recipe), *out, "--set", "model.args.time_steps=4")
    assert refused.returncode == 3
    assert "model.args.time_steps: 4, but frames:" in refused.stderr
    refused = run("imp", "--recipe", str(recipe), *out, "--set", "imp.early_time_steps=2")
    assert refused.returncode == 3
    assert "imp.early_time_steps: frames:" in refused.stderr


def test_a_file_remembers_a_set_with_its_settings_and_gets_it_again() -> None:
    from snnprune.data import DataSpec
    from snnprune.jobs.targets.provenance import make_metadata, read_data_spec

    for name in ("moving-mini", "moving-mini:frames=4", "shd:bins=50,size=140"):
        metadata = make_metadata("train", data=DataSpec(name=name))
        assert read_data_spec(metadata) == DataSpec(name=name)
    for name in ("moving-mini:frames=99", "frames:/etc", "own.py:batches", "nmnist:load"):
        assert read_data_spec(make_metadata("train", data=DataSpec(name=name))) is None
    data = open_data("moving-mini:frames=2", options=DataOptions())
    assert data.time_steps == 2
