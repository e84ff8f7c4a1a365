"""`theory` as it is typed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import save_file

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
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


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("width", "--threshold", 1), ("--threshold", "theorem is empty", "--span")),
        (("width", "--beta", 1), ("--beta", "1 is not in [0, 1)")),
        (("width", "--delta", "nan"), ("--delta", "nan is not in (0, 1)")),
        (("width", "--margin", 0), ("--margin", "0 is not above 0")),
        (("width", "--error", 0.5), ("--error", "likelier than delta")),
        (("construct", "--reset", 0.6), ("--reset", "fires again without input")),
        (("construct", "--reset", -0.1), ("--reset", "may miss")),
        (("construct", "--soft", "--beta", 0.6), ("--threshold", "beta times the span")),
        (
            ("construct", "--neurons", 30, "--trials", 10000, "--by-density"),
            ("--trials", "weights to draw"),
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_the_theorem_does_not_cover_is_refused_with_the_reason(
    run: Run, flags: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(run("theory", *flags), 2, *words)


@pytest.mark.slow
def test_crisis_shows_bound_estimate_and_count(run: Run, model_file: Path, tmp_path: Path) -> None:
    done = run("theory", "crisis", model_file, "--samples", 64, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "blocks.0.conv" in done.stdout
    rows = done.stdout[done.stdout.index("all layers changed") :].splitlines()
    assert [row.split()[0] for row in rows[2:4]] == ["encoder.neuron", "blocks.0.neuron"]
    assert "it passes 1, and says nothing, from encoder.neuron at step 1 on" in done.stdout
    names = {"crisis.svg", "crisis.png", "accumulation.svg", "accumulation.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_crisis_of_the_whole_network_is_bounded_where_little_changes(
    run: Run, model_file: Path
) -> None:
    done = run("theory", "crisis", model_file, "--samples", 64, "--noise", 1e-7, "--json")
    found = json.loads(done.stdout)["accumulation"]
    last = found[-1]
    assert last["near"][-1] <= last["bound"][-1]
    assert 0 < last["bound"][-1] < 1
    for one in found:
        assert all(a <= b + 1e-9 for a, b in zip(one["hit"], one["near"], strict=True))


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


def test_construct_takes_a_target_of_ones_own(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {f"{name}.weight": torch.rand(3, 3) - 0.5 for name in ("a", "b")}
    save_file(layers, tmp_path / "target.safetensors")
    flags = ("--target", tmp_path / "target.safetensors", "--trials", 10, "--json")
    found = json.loads(run("theory", "construct", *flags).stdout)
    assert (found["setting"]["neurons"], found["setting"]["layers"]) == (3, 2)
    assert len({one["compared"]["margin"] for one in found["networks"]}) == 1
    assert found["equal"]["failures"] <= found["within"]["failures"]
    assert len(found["inputs"]) == 1


def test_construct_runs_on_spikes_of_ones_own(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file({"x": (torch.rand(7, 5, 4) < 0.3).byte()}, tmp_path / "x.safetensors")
    flags = ("--spikes", tmp_path / "x.safetensors", "--trials", 5, "--json")
    found = json.loads(run("theory", "construct", *flags).stdout)
    assert (found["setting"]["neurons"], found["setting"]["steps"]) == (4, 5)
    assert {one["compared"]["places"] for one in found["networks"]} == {2 * 4 * 5 * 7}
    assert found["equal"]["failures"] <= found["within"]["failures"]


def test_a_target_s_layers_are_in_the_order_of_their_numbers(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {f"layers.{n}.weight": torch.rand(2, 2) - 0.5 for n in range(12)}
    save_file(layers, tmp_path / "by-letter.safetensors")
    torch.save(layers, tmp_path / "as-is.pt")
    margins = []
    for name in ("by-letter.safetensors", "as-is.pt"):
        flags = ("--target", tmp_path / name, "--trials", 1, "--by-density", "--json")
        found = json.loads(run("theory", "construct", *flags).stdout)
        margins.append(found["networks"][0]["compared"]["margin"])
    assert margins[0] == margins[1]


def test_a_target_too_large_for_the_span_is_refused(run: Run, tmp_path: Path) -> None:
    save_file({"a.weight": 2 * torch.eye(3)}, tmp_path / "t.safetensors")
    done = run("theory", "construct", "--target", tmp_path / "t.safetensors")
    assert_one_line(done, 2, "--span", "weights up to 2")


def test_by_density_says_what_the_theorem_promises(run: Run) -> None:
    flags = ("--by-density", "--trials", 20, "--neurons", 2, "--p-sup", 0.5)
    assert "another spike on an input at random" in run("theory", "construct", *flags).stdout


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"y": torch.zeros(2, 2, 3)}, "holds no x"),
        ({"x": torch.zeros(2, 3)}, "shape (2, 3)"),
        ({"x": torch.full((2, 2, 3), 0.5)}, "other values than 0 and 1"),
        ({"x": torch.full((2, 2, 3), torch.nan)}, "other values than 0 and 1"),
        ({"x": torch.zeros(2, 2, 4)}, "4 inputs for a target of 3"),
    ],
    ids=("no x", "no time", "currents", "nan", "of another size"),
)
def test_what_are_no_spikes_is_refused(
    tensors: dict[str, torch.Tensor], words: str, run: Run, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    save_file({"a.weight": 0.5 * torch.eye(3)}, tmp_path / "t.safetensors")
    files = ("--target", tmp_path / "t.safetensors", "--spikes", tmp_path / "x.safetensors")
    assert_one_line(run("theory", "construct", *files), 3, "x.safetensors", "--spikes", words)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a.weight": torch.zeros(3, 2)}, ("--target", "not all (N, N)")),
        ({"a.weight": torch.eye(3), "b.weight": torch.eye(4)}, ("--target", "not all (N, N)")),
        ({"a.weight": torch.eye(3), "a.bias": torch.zeros(3)}, ("--target", "it has a.bias too")),
    ],
    ids=("oblong", "of two sizes", "a bias"),
)
def test_what_is_no_target_is_refused(
    tensors: dict[str, torch.Tensor], words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "t.safetensors")
    done = run("theory", "construct", "--target", tmp_path / "t.safetensors")
    assert_one_line(done, 3, "t.safetensors", *words)


@pytest.mark.slow
def test_crisis_bounds_a_given_error_and_with_v_shows_densities(run: Run, model_file: Path) -> None:
    base = ("theory", "crisis", model_file, "--samples", 64, "--noise", 0.001)
    done = run(*base, "--error", 0.05, "-v")
    assert done.returncode == 0, done.stderr
    assert "at the threshold" in done.stdout
    assert "Theorem 3.5" in done.stdout
    near = []
    for flags in ((), ("--error", 0.05), ("--error", 0.5)):
        found = json.loads(run(*base, *flags, "--json").stdout)
        near.append([sum(one["near"]) for one in found["crises"]])
    assert all(a <= b < c for a, b, c in zip(*near, strict=True))
