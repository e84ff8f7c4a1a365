"""Limits in the place of a sparsity: what `prune` makes within them, counted again by `check`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--samples", 128, "--eval-samples", 128)
PLAIN = ("--criterion", "magnitude", "--repair", "none")


@pytest.fixture
def prune(run: Run, model_file: Path, tmp_path: Path) -> Run:
    """`prune("--max-weights", 100)`: writes p.safetensors in the test's folder."""
    return lambda *flags: run("prune", model_file, *FEW, *flags, "-o", tmp_path / "p.safetensors")


@pytest.fixture
def found(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """What the report says of the budget."""
    return lambda: json.loads((tmp_path / "p.report.json").read_text())["budget"]


def count_kept(path: Path) -> int:
    return sum(int((one != 0).sum()) for one in load_file(path).values() if one.dim() > 1)


@pytest.mark.many(1)
@pytest.mark.parametrize(
    ("limits", "more"),
    [
        (("--max-synops", "40k"), PLAIN),
        (("--max-fan-in", 40, "--min-per-channel", 3, "--max-weights", 500), ("--repair", "obs")),
        (("--max-weights", 600, "--max-layer-synops", "12k"), ("--tune-steps", 24)),
        (("--max-energy", "150nJ", "--max-layer-sparsity", 0.9), PLAIN),
        (("--max-size", "15kB", "--max-synops", "45k"), PLAIN),
        (("--max-fan-in", 30, "--min-per-channel", 4), ("--tune-steps", 24)),
        (("--max-synops", "40k"), (*PLAIN, "--structure", "channels")),
        (("--max-synops", "40k", "--max-fan-in", 60), (*PLAIN, "--allocation", "erk")),
        (("--max-weights", 900), ("--bits", 4, "--repair", "obs")),
    ],
)
def test_the_file_keeps_within_every_limit_as_check_counts_it(
    prune: Run, run: Run, tmp_path: Path, limits: tuple[Any, ...], more: tuple[Any, ...]
) -> None:
    done = prune(*limits, *more)
    assert done.returncode == 0, done.stderr
    checked = run("check", tmp_path / "p.safetensors", "--samples", 128, *limits)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_number_of_weights_is_met_to_the_last_one(
    prune: Run, found: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    done = prune("--max-weights", 777, "--max-fan-in", 300, *PLAIN)
    assert done.returncode == 0, done.stderr
    assert count_kept(tmp_path / "p.safetensors") == 777
    assert [one["kept"] for one in found()["tries"]] == [777]
    assert "bound by --max-weights: 1 try" in done.stdout


def test_operations_come_near_their_limit_and_what_was_predicted_is_told(
    prune: Run, found: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    done = prune("--max-synops", "40k", *PLAIN)
    assert done.returncode == 0, done.stderr
    budget = found()
    (limit,) = budget["limits"]
    last = next(one for one in budget["tries"] if one["measured"] == limit["measured"])
    assert last["kept"] == max(one["kept"] for one in budget["tries"] if one["met"])
    assert 38_000 < limit["measured"] <= 40_000 < limit["dense"]
    assert limit["bound"]
    assert sum(one["measured"] for one in budget["layers"].values()) == pytest.approx(
        limit["measured"]
    )
    report = json.loads((tmp_path / "p.report.json").read_text())
    work = report["workload"]["after"]
    assert limit["measured"] == (work["macs"] + work["acs"]) / work["samples"]
    assert "bound by --max-synops" in done.stdout
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("wrote"))


def test_limits_that_hold_already_prune_nothing_and_it_is_said(
    prune: Run, model_file: Path, tmp_path: Path
) -> None:
    done = prune("--max-synops", "1G", "--max-weights", "1M", "--max-size", "1GB", *PLAIN)
    assert done.returncode == 0, done.stderr
    assert "within every limit as it is: nothing is pruned" in done.stdout
    before, after = load_file(model_file), load_file(tmp_path / "p.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_file_that_zeros_make_no_smaller_is_refused_where_it_is_to_be_smaller(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    torch.save(load_file(model_file), tmp_path / "net.pth")
    flags = ("--criterion", "magnitude", "--repair", "none", "--max-size")
    prune = ("prune", tmp_path / "net.pth", *flags)
    words = ("--out", "no pruning makes it smaller", "name it p.safetensors")
    assert_one_line(run(*prune, "5kB", "-o", tmp_path / "p.pth"), 3, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
    done = run(*prune, "5kB", "-o", tmp_path / "p.safetensors")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.safetensors").stat().st_size <= 5000
    assert run(*prune, "1MB", "-o", tmp_path / "p.pth").returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--max-synops", 10), ("--max-synops", "cannot be met", "the least there is")),
        (("--max-size", 100), ("--max-size", "cannot be met", "bytes")),
        (("--max-weights", 300, "--max-layer-sparsity", 0.1), ("--max-weights", "too many")),
        (("--max-weights", 300, "--target-accuracy", 0.999), ("--target-accuracy", "99.90%")),
    ],
)
def test_limits_that_nothing_meets_are_one_error_that_says_by_how_much(
    prune: Run, tmp_path: Path, flags: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(prune(*flags, *PLAIN), 4, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--max-weights", "2.5"), ("--max-weights", "20k")),
        (("--max-fan-in", "few"), ("--max-fan-in", "20k")),
        (("--max-fan-in", 0), ("--max-fan-in", "no neuron")),
        (("--max-fan-in", 3, "--min-per-channel", 4), ("--min-per-channel", "--max-fan-in 3")),
        (("--min-per-channel", 4), ("--sparsity", "missing", "--max-synops")),
        (("--max-weights", 9, "--steps", 2), ("--steps",)),
        (
            ("--max-weights", 9, "--min-per-channel", 1, "--allocation", "lamp"),
            ("--min-per-channel", "--allocation"),
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    prune: Run, flags: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(prune(*flags), 2, *words)


def test_beside_an_accuracy_layers_and_channels_keep_what_they_must(
    prune: Run, run: Run, tmp_path: Path
) -> None:
    keeps = ("--max-layer-sparsity", 0.8, "--min-per-channel", 5)
    done = prune("--target-accuracy", 0.05, "--resolution", 0.1, *keeps, *PLAIN)
    assert done.returncode == 0, done.stderr
    assert run("check", tmp_path / "p.safetensors", *keeps).returncode == 0
    report = json.loads((tmp_path / "p.report.json").read_text())
    # 3,209 of the 16,004 weights must stay, which is a little more than a fifth
    assert [one["sparsity"] for one in report["search"]["tries"]][-1] == 0.7
    assert report["totals"]["pruned"] == round(0.7 * report["totals"]["prunable"])
    coarse = ("--resolution", 0.1, "--max-layer-sparsity", 0.05, "--force")
    done = prune("--target-accuracy", 0.05, *coarse, *PLAIN)
    assert_one_line(done, 4, "--target-accuracy", "nothing is to be tried")


def test_beside_a_sparsity_limits_are_gates(prune: Run, tmp_path: Path) -> None:
    limits = ("--max-weights", 10, "--max-fan-in", 10, "--max-layer-synops", "1G")
    done = prune("--sparsity", 0.5, *PLAIN, *limits)
    assert_one_line(done, 4, "2 of 3 gates not met", "--max-weights 10", "--max-fan-in 10")
    assert (tmp_path / "p.safetensors").exists()


def test_a_bare_file_is_cut_to_numbers_of_weights_too(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(8, 6), "b.weight": torch.randn(4, 3, 3, 3)}
    save_file(tensors, tmp_path / "x.safetensors")
    limits = ("--max-weights", 60, "--max-fan-in", 9, "--min-per-channel", 2)
    out = tmp_path / "p.safetensors"
    done = run("prune", tmp_path / "x.safetensors", *limits, "-o", out)
    assert done.returncode == 0, done.stderr
    assert run("check", out, *limits).returncode == 0
    assert count_kept(out) == 60
    rows = [(one != 0).flatten(1).sum(1) for one in load_file(out).values()]
    assert all(int(row.min()) >= 2 and int(row.max()) <= 9 for row in rows)
    refused = run("prune", tmp_path / "x.safetensors", "--max-synops", 9, "-o", out, "--force")
    assert_one_line(refused, 3, "--max-synops", "cannot be judged")
