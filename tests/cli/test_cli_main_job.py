"""The main job, as a user does it: real processes, real files, real images."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from snnprune.checkpoint.mask_file import read_masks
from snnprune.models import ModelSpec, build_model

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]
QUICK = ("--criterion", "sf", "--repair", "bn")  # which leave kept weights as they are
SHORT = ("--tune-steps", "40", "--tune-images", "256")


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in load_file(path).items() if value.dim() > 1}


def test_training_leaves_a_run_folder_that_says_what_it_is(small: Path) -> None:
    names = {path.name for path in small.iterdir()}
    hashed = {
        "recipe.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "best.safetensors",
        "report.json",
        "report.html",
        "report.md",
    }
    assert names == hashed | {"SHA256SUMS", "DONE", "state", "run.lock"}
    for line in (small / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((small / name).read_bytes()).hexdigest() == digest
    with safe_open(small / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["snnprune.model"])["name"] == "conv-snn"
    assert json.loads(metadata["snnprune.data"])["name"] == "fashion-mnist-mini"
    report = json.loads((small / "report.json").read_text())
    assert report["test"]["correct"] / report["test"]["labelled"] > 0.5  # far above chance


@pytest.mark.slow
def test_the_resolved_recipe_trains_to_the_same_weights(
    small: Path, process: Run, tmp_path: Path
) -> None:
    done = process("train", "--recipe", small / "recipe.yaml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    first = load_file(small / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_score_without_flags_scores_by_sf_and_says_so(model_file: Path, run: Run) -> None:
    done = run("score", model_file)
    assert done.returncode == 0, done.stderr
    assert "criterion sf (the network and its data are at hand)" in done.stdout
    assert "by magnitude: encoder.conv (encoding layer" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout


def test_a_score_file_holds_a_log_score_per_weight(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "scores.safetensors"
    assert run("score", model_file, "-o", out).returncode == 0
    scores, weights = load_file(out), weights_of(model_file)
    assert scores.keys() == weights.keys()
    assert all(scores[key].shape == weights[key].shape for key in weights)
    assert {score.dtype for score in scores.values()} == {torch.float32}
    with safe_open(out, "pt") as file:
        assert file.metadata()["snnprune.scale"] == "log"


@pytest.mark.parametrize(
    ("sparsity", "how"), [(0.0, QUICK), (0.5, QUICK), (0.9, SHORT), (0.99, QUICK)], ids=str
)
def test_the_count_is_exact_in_the_written_file(
    sparsity: float,
    how: tuple[str, ...],
    model_file: Path,
    run: Run,
    as_json: Json,
    tmp_path: Path,
) -> None:
    out = tmp_path / "p.safetensors"
    flags = ("--sparsity", sparsity, "--no-eval", "--samples", 64, "--json", *how)
    done = run("prune", model_file, "-o", out, *flags)
    assert done.returncode == 0, done.stderr
    weights = weights_of(out)
    total = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert zeros == round(sparsity * total)
    assert as_json(done)["totals"]["pruned"] == zeros
    masks = read_masks(tmp_path / "p.mask.safetensors")
    assert all(torch.equal(masks[key], weight != 0) for key, weight in weights.items())


def test_pruning_a_pruned_file_counts_old_zeros_once(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    common = ("--no-eval", "--samples", 64, *QUICK)
    assert run("prune", model_file, "--sparsity", 0.5, "-o", first, *common).returncode == 0
    done = run("prune", first, "--sparsity", 0.9, "-o", second, *common)
    assert done.returncode == 0, done.stderr
    assert "were 0 already" in done.stderr
    before, after = weights_of(first), weights_of(second)
    total = sum(weight.numel() for weight in after.values())
    assert sum(int((weight == 0).sum()) for weight in after.values()) == round(0.9 * total)
    assert all(bool((after[key][before[key] == 0] == 0).all()) for key in before)


def test_the_pruned_file_is_a_drop_in(
    model_file: Path, process: Run, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    flags = ("--sparsity", 0.8, "--report", tmp_path / "report", *QUICK)
    done = process("prune", model_file, "-o", out, *flags)
    assert done.returncode == 0, done.stderr
    with safe_open(model_file, "pt") as before, safe_open(out, "pt") as after:
        spec = json.loads(after.metadata()["snnprune.model"])
        assert list(before.keys()) == list(after.keys())
    module = build_model(ModelSpec(name=spec["name"], args=spec["args"]))
    module.load_state_dict(load_file(out))
    dense, pruned = load_file(model_file), load_file(out)
    kept = {key: pruned[key] != 0 for key in weights_of(out)}
    assert all(torch.equal(dense[key][kept[key]], pruned[key][kept[key]]) for key in kept)

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["schema"] == 1
    assert report["before"]["labelled"] == report["after"]["labelled"] == 1000
    assert report["inputs"][0]["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert report["outputs"][0]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()

    evaluated = run("eval", out, "--json")
    assert json.loads(evaluated.stdout)["evaluation"]["correct"] == report["after"]["correct"]


def test_batchnorm_repair_changes_the_running_statistics_and_none_does_not(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    dense = load_file(model_file)
    found = {}
    for repair in ("bn", "none"):
        out = tmp_path / f"{repair}.safetensors"
        common = ("--sparsity", 0.9, "--no-eval", "--samples", 256, "--criterion", "sf")
        assert run("prune", model_file, "-o", out, *common, "--repair", repair).returncode == 0
        found[repair] = load_file(out)
    key = "blocks.0.norm.running_var"
    assert torch.equal(found["none"][key], dense[key])
    assert not torch.equal(found["bn"][key], dense[key])
    assert torch.equal(found["bn"]["blocks.0.conv.weight"], found["none"]["blocks.0.conv.weight"])


def test_a_calibration_file_gives_the_same_scores_as_a_fresh_pass(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration = tmp_path / "c.safetensors"
    done = run("calibrate", model_file, "-o", calibration, "--samples", 128)
    assert done.returncode == 0, done.stderr
    assert "at least 1024 are advised" in done.stderr
    fresh, reused = tmp_path / "fresh.safetensors", tmp_path / "reused.safetensors"
    assert run("score", model_file, "-o", fresh, "--samples", 128).returncode == 0
    assert run("score", model_file, "-o", reused, "--calibration", calibration).returncode == 0
    a, b = load_file(fresh), load_file(reused)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_calibration_of_another_checkpoint_is_refused(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration, other = tmp_path / "c.safetensors", tmp_path / "p.safetensors"
    assert run("calibrate", model_file, "-o", calibration, "--samples", 8).returncode == 0
    run("prune", model_file, "--sparsity", 0.5, "-o", other, "--no-eval", "--samples", 8, *QUICK)
    done = run("score", other, "--calibration", calibration)
    assert done.returncode == 3
    assert "was not taken on p.safetensors" in done.stderr


def test_a_bare_state_dict_is_pruned_by_magnitude_and_the_reason_is_told(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    bare, out = tmp_path / "bare.pth", tmp_path / "p.safetensors"
    torch.save({"net": load_file(model_file), "epoch": 3}, bare)
    done = run("prune", bare, "--sparsity", 0.9, "-o", out, "--allocation", "global")
    assert done.returncode == 0, done.stderr
    assert "criterion magnitude (the file does not say which model" in done.stdout
    weights = weights_of(out)
    flat = torch.cat([value.flatten().abs() for value in weights_of(model_file).values()])
    cut = flat.sort().values[round(0.9 * len(flat))]
    kept = torch.cat([value.flatten().abs() for value in weights.values()])
    assert kept[kept > 0].min() == cut


def test_flags_name_model_and_data_where_the_file_does_not(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(load_file(model_file), bare)
    arguments = ("width=4", "depth=2", "time_steps=2", "in_channels=1", "size=28")
    flags = [part for argument in arguments for part in ("--model-arg", argument)]
    done = run(
        "score",
        bare,
        "--model",
        "conv-snn",
        *flags,
        "--data",
        "fashion-mnist-mini",
        "--samples",
        64,
    )
    assert done.returncode == 0, done.stderr
    assert "criterion sf" in done.stdout


def test_inspect_shows_layers_and_links(model_file: Path, run: Run, as_json: Json) -> None:
    done = run("inspect", model_file)
    assert done.returncode == 0, done.stderr
    assert "encoder.neuron" in done.stdout
    found = as_json(run("inspect", model_file, "--json"))
    assert [layer["neuron"] for layer in found["layers"]] == [
        "encoder.neuron",
        "blocks.0.neuron",
        None,
    ]
    assert found["totals"]["pruned"] == 0


def test_eval_prints_accuracy_loss_firing_and_sparsity(model_file: Path, run: Run) -> None:
    done = run("eval", model_file, "--samples", 200)
    assert done.returncode == 0, done.stderr
    for word in ("accuracy", "loss", "encoder.neuron", "pruned 0 of", "200 test images"):
        assert word in done.stdout
