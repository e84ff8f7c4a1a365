"""Several sparsities, an accuracy to hold, recipes and the default way of `prune`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.mask_file import write_masks
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import OutputError
from snnprune.jobs.prune.target_sparsity import Try, bisect, choose_best, choose_validation
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
WEIGHT = "blocks.0.conv.weight"


@pytest.fixture
def prune(untrained: Path, run: Run, tmp_path: Path) -> Run:
    """`prune("--sparsity", 0.5)`: writes p.safetensors in the test's folder."""
    few = ("--samples", 32, "--eval-samples", 64)
    return lambda *flags: run("prune", untrained, "-o", tmp_path / "p.safetensors", *few, *flags)


def zeros(path: Path, key: str | None = None) -> tuple[int, int]:
    """Weights that are 0, and all weights, of the file or of one layer."""
    tensors = load_file(path)
    found = [w for k, w in tensors.items() if w.dim() > 1 and key in (None, k)]
    return sum(int((w == 0).sum()) for w in found), sum(w.numel() for w in found)


def test_each_sparsity_gets_a_file_with_exact_counts(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", "0.5,0.7", "--criterion", "magnitude", "--repair", "none")
    assert done.returncode == 0, done.stderr
    for sparsity in (0.5, 0.7):
        pruned, total = zeros(tmp_path / f"p-{sparsity}.safetensors")
        assert pruned == round(sparsity * total)
        report = json.loads((tmp_path / f"p-{sparsity}.report.json").read_text())
        assert report["sparsity_asked"] == sparsity
        assert report["totals"]["pruned"] == pruned
        assert {"calibration", "scoring", "evaluation"} <= report["cost"]["seconds"].keys()
        assert report["cost"]["peak_memory"] > 2**20
        assert f"p-{sparsity}.safetensors" in done.stdout
    assert not (tmp_path / "p.safetensors").exists()


def test_a_name_that_is_taken_stops_all_files_before_the_work(prune: Run, tmp_path: Path) -> None:
    (tmp_path / "p-0.7.mask.safetensors").write_text("mine")
    assert_one_line(prune("--sparsity", "0.5,0.7"), 5, "p-0.7.mask.safetensors", "--force")
    assert not (tmp_path / "p-0.5.safetensors").exists()


def test_a_repair_keeps_statistics_of_8_bit_floats_in_their_type(
    untrained: Path, prune: Run, run: Run, tmp_path: Path
) -> None:
    tensors, mean = load_file(untrained), "blocks.0.norm.running_mean"
    tensors[mean] = tensors[mean].to(torch.float8_e4m3fn)
    write_safetensors(tmp_path / "tiny.safetensors", tensors, read_checkpoint(untrained).metadata)
    flags = ("--sparsity", "0.5", "--criterion", "magnitude", "--repair", "bn", "--samples", 32)
    out = tmp_path / "p.safetensors"
    done = run("prune", tmp_path / "tiny.safetensors", "-o", out, "--no-eval", *flags)
    assert done.returncode == 0, done.stderr
    repaired = load_file(out)[mean]
    assert repaired.dtype == torch.float8_e4m3fn
    assert repaired.tolist() != tensors[mean].tolist()


def test_an_error_midway_names_the_files_that_are_whole(
    prune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *others: Any) -> None:
        if "0.7" in path.name:
            raise OutputError("cannot be written: no space", file=path)
        write_masks(path, *others)

    monkeypatch.setattr("snnprune.jobs.prune.filing.write_masks", full)
    quick = ("--criterion", "magnitude", "--repair", "none", "--no-eval")
    assert_one_line(
        prune("--sparsity", "0.5,0.7", *quick), 5, "no space", "written before: p-0.5.safetensors"
    )
    assert (tmp_path / "p-0.5.report.json").exists()


def test_without_flags_the_best_known_way_is_taken_and_told(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", 0.8, "--no-tune")
    assert done.returncode == 0, done.stderr
    line = "criterion magnitude (the network and its data are at hand), allocation lamp"
    assert f"{line}, repair obs" in done.stdout
    pruned, total = zeros(tmp_path / "p.safetensors")
    assert pruned == round(0.8 * total)


def test_the_closed_form_tells_on_stderr_what_it_will_take_before_it_begins(
    prune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snnprune.pruning.repair.cost.LONG", 0.0)
    fast = ("--sparsity", 0.8, "--criterion", "sf", "--repair", "lsq", "--no-eval")
    done = prune(*fast)
    assert done.returncode == 0, done.stderr
    before, told, after = done.stderr.partition("closed form: about ")
    assert told not in done.stdout
    assert "calibrating: done" in before
    assert "least squares: done" in after
    quiet = prune(*fast, "--quiet", "--force", "--json")
    assert (quiet.returncode, "closed form" in quiet.stderr) == (0, False)
    (estimate,) = json.loads(quiet.stdout)["cost"]["estimates"]
    assert estimate["seconds"] >= 0
    assert estimate["peak_memory"] > 2**20


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), ("--sparsity", "missing")),
        (("--sparsity", "0.5,x"), ("--sparsity", "'x' is not a number")),
        (("--sparsity", "0.5,0.50"), ("--sparsity", "twice")),
        (("--target-accuracy", 88), ("--target-accuracy", "did you mean 0.88?")),
        (("--target-accuracy", 0.8, "--max-accuracy-drop", 1), ("--target-accuracy",)),
        (("--target-accuracy", 0.8, "--sparsity", 0.5), ("--target-accuracy", "leave one out")),
        (("--sparsity", 0.5, "--structure", "unstructred"), ("did you mean unstructured?",)),
        (("--sparsity", 0.5, "--repair", "obs+tun"), ("--repair", "did you mean tune?")),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(
    prune: Run, flags: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(prune(*flags), 2, *words)


def test_the_sparsity_found_was_measured_to_hold(prune: Run, tmp_path: Path) -> None:
    quick = ("--criterion", "magnitude", "--repair", "none", "--resolution", 0.25)
    done = prune("--max-accuracy-drop", 15, *quick)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "p.report.json").read_text())
    search = report["search"]
    assert [one["sparsity"] for one in search["tries"]] == [0.5, 0.75]
    assert all(one["held"] for one in search["tries"])
    assert report["sparsity_asked"] == 0.75
    pruned, total = zeros(tmp_path / "p.safetensors")
    assert pruned == round(0.75 * total)
    assert "looked for" in done.stdout


def test_an_accuracy_out_of_reach_writes_nothing(prune: Run, tmp_path: Path) -> None:
    quick = ("--criterion", "magnitude", "--repair", "none", "--resolution", 0.25)
    done = prune("--target-accuracy", 1, *quick)
    assert_one_line(done, 4, "--target-accuracy", "the dense network has")
    assert list(tmp_path.iterdir()) == []


def test_layers_of_a_recipe_have_their_own_exact_count(prune: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"prune:\n  criterion: magnitude\n  repair: none\n  sparsity: 0.9\n"
        f"  layers:\n    {WEIGHT}: 0.25\n"
    )
    done = prune("--recipe", recipe, "--sparsity", 0.5)
    assert done.returncode == 0, done.stderr
    pruned, size = zeros(tmp_path / "p.safetensors", WEIGHT)
    assert pruned == round(0.25 * size)
    everywhere, total = zeros(tmp_path / "p.safetensors")
    assert everywhere - pruned == round(0.5 * (total - size))


def test_where_a_recipe_names_every_layer_nothing_is_shared_out(prune: Run, tmp_path: Path) -> None:
    layers = ("encoder.conv.weight", WEIGHT, "classifier.weight")
    lines = "".join(f"    {key}: 0.5\n" for key in layers)
    (tmp_path / "r.yaml").write_text(f"prune:\n  criterion: magnitude\n  layers:\n{lines}")
    done = prune("--recipe", tmp_path / "r.yaml", "--repair", "none", "--no-eval")
    assert done.returncode == 0, done.stderr
    assert "criterion magnitude (asked for), allocation by layer, repair none" in done.stdout


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("prune:\n  criterium: sf\n", 3, ("r.yaml:2", "did you mean criterion?")),
        ("prune:\n  sparsity: 90\n", 3, ("prune.sparsity", "did you mean 0.9?")),
        ("{}\n", 3, ("prune", "missing")),
        ("prune:\n  layers:\n    blocks.0.conv.wight: 0.5\n", 3, (f"did you mean {WEIGHT}?",)),
    ],
)
def test_a_recipe_that_is_wrong_is_refused(
    prune: Run, tmp_path: Path, text: str, code: int, words: tuple[str, ...]
) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert_one_line(prune("--recipe", tmp_path / "r.yaml"), code, *words)


@pytest.mark.parametrize("edge", [0.0, 0.003, 0.5, 0.87, 0.9949])
def test_bisection_ends_at_the_last_step_below_the_edge(edge: float) -> None:
    tries = bisect(lambda s: 1.0 - (s > edge), target=1.0, resolution=0.005)
    found = choose_best(tries)
    steps = int(edge / 0.005 + 1e-9)
    assert (found.sparsity if found else 0.0) == pytest.approx(steps * 0.005)
    assert len(tries) <= 8


def test_the_best_of_tries_is_one_that_held() -> None:
    tries = tuple(
        Try(sparsity=s, accuracy=a, held=a >= 0.5) for s, a in ((0.5, 0.4), (0.25, 0.6), (0.3, 0.5))
    )
    found = choose_best(tries)
    assert found is not None
    assert found.sparsity == 0.3


def test_images_held_out_are_none_of_the_calibration(untrained: Path) -> None:
    target = open_target(TargetOptions(checkpoint=untrained, samples=32, batch_size=32))
    held = choose_validation(target, None, 100)
    (calibrated,) = [x.flatten(1) for x, _ in target.calibration_batches()]
    images = torch.cat([x.flatten(1) for x, _ in held.batches])
    assert held.split == "training"
    assert len(images) == 100
    assert torch.cdist(images, calibrated).min() > 0.1
