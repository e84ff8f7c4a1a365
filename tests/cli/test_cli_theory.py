"""`theory` as it is typed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from one_line import assert_one_line

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_widths_are_shown_printed_and_corrected(run: Run, tmp_path: Path) -> None:
    done = run("theory", "width", "--margin", 0.01, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "194,841       64,947" in done.stdout
    assert "26,988       37,938" in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("wrote")]
    assert all(len(line) <= 80 for line in lines)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"widths.svg", "widths.png"}
    again = run("theory", "width", "-o", tmp_path / "out")
    assert_one_line(again, 5, "widths.svg", "exists already")


def test_the_report_holds_the_numbers(run: Run) -> None:
    found = json.loads(run("theory", "width", "--json").stdout)
    assert [row["statement"] for row in found["widths"]][-1] == "C.6, 4.3"
    assert found["firing"] == 0.25


def test_construct_counts_over_seeds_and_says_how_sure(run: Run) -> None:
    done = run("theory", "construct", "--trials", 20, "--neurons", 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["equal"]["trials"] == 20
    assert found["equal"]["low"] <= 0.2
    assert all(one["compared"]["flipped"] == 0 for one in found["networks"] if one["within"])
    again = json.loads(run("theory", "construct", "--trials", 20, "--neurons", 2, "--json").stdout)
    assert again == found


def test_construct_prints_a_table(run: Run) -> None:
    done = run("theory", "construct", "--trials", 5, "--neurons", 2, "--soft", "--beta", 0.4)
    assert done.returncode == 0, done.stderr
    assert "4.1 as printed" in done.stdout
    assert "5 whole networks" in done.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("width", "--threshold", 1), ("--threshold", "theorem is empty", "--span")),
        (("width", "--beta", 1), ("--beta",)),
        (("width", "--error", 0.5), ("--error", "likelier than delta")),
        (("construct", "--reset", 0.6), ("--reset", "fires again without input")),
        (("construct", "--reset", -0.1), ("--reset", "may miss")),
        (("construct", "--soft", "--beta", 0.6), ("--threshold", "beta times the span")),
        (("construct", "--neurons", 30, "--trials", 10000), ("--trials", "weights to draw")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_the_theorem_does_not_cover_is_refused_with_the_reason(
    run: Run, flags: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(run("theory", *flags), 2, *words)


def test_crisis_shows_bound_estimate_and_count(run: Run, model_file: Path, tmp_path: Path) -> None:
    done = run("theory", "crisis", model_file, "--samples", 64, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "blocks.0.conv" in done.stdout
    assert "all layers changed: encoder.neuron flips" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"crisis.svg", "crisis.png"}


def test_crisis_by_noise_grows_with_it_and_bounds_hold(run: Run, model_file: Path) -> None:
    flips = []
    for noise in (0.01, 0.3):
        done = run("theory", "crisis", model_file, "--samples", 64, "--noise", noise, "--json")
        found = json.loads(done.stdout)
        for one in found["crises"]:
            moved = one["moved"]
            rates = [a / b for a, b in zip(moved["first"], moved["places"], strict=True)]
            assert all(a <= b + 1e-9 for a, b in zip(rates, one["near"], strict=True))
            assert all(a <= b + 1e-9 for a, b in zip(one["near"], one["bound"], strict=True))
        flips.append(sum(sum(one["moved"]["flips"]) for one in found["crises"]))
    assert flips[0] < flips[1]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--sparsity", 0.5, "--noise", 0.1), 2, ("--noise", "one change at a time")),
        (("--sparsity", 1), 2, ("--sparsity",)),
        (("--noise", 0), 2, ("--noise", "outside (0, 100)")),
    ],
    ids=("both", "all", "nothing"),
)
def test_crisis_refuses_changes_that_make_no_sense(
    run: Run, model_file: Path, flags: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    assert_one_line(run("theory", "crisis", model_file, *flags), code, *words)
