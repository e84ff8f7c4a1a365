"""The evidence in a report: predictions and histograms by hand."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from valid_reports import assert_valid

from snnprune.jobs.reports import make_schema
from snnprune.pruning.effects import make_score_histogram
from snnprune.report.schema import text

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_every_weight_is_in_one_bin() -> None:
    scores = torch.tensor([1.0, 10.0, 100.0, 0.0, 0.0])
    mask = torch.tensor([False, True, True, False, True])
    found = make_score_histogram(scores, mask, "linear")
    assert (sum(found.kept), sum(found.pruned), found.lowest) == (2, 1, (1, 1))
    assert found.edges[0] == 0
    assert found.edges[-1] == pytest.approx(2)
    assert found.pruned[0] == 1
    assert found.kept[-1] == 1
    assert found.kept[len(found.kept) // 2] == 1


def test_logarithms_are_brought_to_base_10() -> None:
    scores = torch.tensor([math.log(1e-3), math.log(1e-1), -math.inf])
    found = make_score_histogram(scores, torch.tensor([True, True, False]), "log")
    assert found.edges[0] == pytest.approx(-3)
    assert found.edges[-1] == pytest.approx(-1)
    assert found.lowest == (0, 1)


@pytest.mark.parametrize("scores", [torch.zeros(3), torch.full((3,), -2.0)])
def test_scores_without_logarithms_have_no_bins(scores: torch.Tensor) -> None:
    found = make_score_histogram(scores, torch.tensor([True, False, True]), "linear")
    assert found.edges == ()
    assert found.lowest == (2, 1)


def test_equal_scores_are_in_one_bin_of_some_width() -> None:
    found = make_score_histogram(torch.full((4,), 5.0), torch.ones(4, dtype=torch.bool), "linear")
    assert max(found.kept) == 4
    assert found.edges[0] < found.edges[-1]


def test_the_schema_in_the_package_is_that_of_the_types() -> None:
    assert text() == make_schema()


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"seed": "0"}, "$.seed"),
        ({"sizes": None}, "$.sizes"),
        ({"surprise": 1}, "surprise"),
        ({"command": "exprot"}, "no schema"),
        ({"written_bytes": -1}, "$.written_bytes"),
        ({"inputs": [{"path": "x", "sha256": "abc"}]}, "$.inputs[0].sha256"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_report_that_breaks_its_promise_is_noticed(
    change: dict[str, object], fault: str, run: Run, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d.safetensors"
    report = json.loads(run("export", model_file, "--to", "dense", "-o", out, "--json").stdout)
    with pytest.raises(AssertionError, match=re.escape(fault)):
        assert_valid({**report, **change})


@pytest.mark.slow
def test_input_rates_are_those_of_calibrating_either_file(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "p.safetensors", tmp_path / "r"
    few = ("--samples", 64)
    flags = ("--sparsity", 0.8, "--criterion", "sf", *few, "--eval-samples", 64, "-o", out)
    assert run("prune", model_file, *flags, "--report", page).returncode == 0
    found = json.loads((page / "report.json").read_text())["evidence"]["input_rates"]
    assert found
    for when, file in (("before", model_file), ("after", out)):
        calibrated = tmp_path / f"{when}.safetensors"
        assert run("calibrate", file, *few, "-o", calibrated).returncode == 0
        with safe_open(calibrated, "pt") as tensors:
            for key, rates in found.items():
                mean = float(tensors.get_tensor(f"input_rate/{key}").double().mean())
                assert rates[when] == pytest.approx(mean, rel=1e-6)
    assert any(rates["before"] != rates["after"] for rates in found.values())
    assert re.search(r"blocks\.0\.conv \|.*0\.\d{3} → 0\.\d{3}", (page / "report.md").read_text())
