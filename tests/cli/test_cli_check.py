"""`check`, and the same gates on `prune`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--samples", 64)
PLAIN = ("--criterion", "magnitude", "--repair", "none")


@pytest.fixture(scope="module")
def pruned(model_file: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The network at 90 %, by magnitude alone."""
    out = tmp_path_factory.mktemp("pruned") / "p.safetensors"
    flags = ("--sparsity", 0.9, *PLAIN, "--no-eval", "-o", out)
    assert run("prune", model_file, *flags).returncode == 0
    return out


@pytest.fixture
def check(run: Run, pruned: Path) -> Run:
    return lambda *flags: run("check", pruned, *FEW, *flags)


def gates(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {one["gate"]: one for one in json.loads(done.stdout)["gates"]}


def test_met_gates_are_exit_code_0_and_all_are_listed(check: Run, model_file: Path) -> None:
    done = check(
        *("--min-sparsity", 0.9, "--max-sparsity", 0.9, "--max-size", "1MB"),
        *("--baseline", model_file, "--max-accuracy-drop", 99, "--min-spike-agreement", 0.1),
        *("--min-accuracy", 0, "--max-synops", "1G", "--max-energy", "1J", "--max-dead", "100%"),
        *("--max-layer-sparsity", 1),
    )
    assert done.returncode == 0, done.stderr
    assert "10 of 10 gates met" in done.stdout
    assert "NOT MET" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_a_gate_that_is_not_met_is_exit_code_4_and_one_line(check: Run) -> None:
    done = check("--min-sparsity", "0.95", "--max-size", "1MB")
    assert_one_line(done, 4, "p.safetensors", "1 of 2 gates not met", "--min-sparsity 0.95")
    assert "1 of 2 gates met" in done.stdout


def test_the_counts_are_those_of_eval_and_diff(
    check: Run, run: Run, pruned: Path, model_file: Path
) -> None:
    done = check(
        *("--baseline", model_file, "--max-accuracy-drop", 99, "--min-spike-agreement", 0),
        *("--max-synops", "1G", "--max-energy", "1J", "--max-dead", 0, "--json"),
    )
    found = gates(done)
    evaluated = json.loads(run("eval", pruned, *FEW, "--json").stdout)
    work, evaluation = evaluated["workload"], evaluated["evaluation"]
    compared = json.loads(run("diff", model_file, pruned, *FEW, "--json").stdout)["agreement"]
    assert found["max-synops"]["measured"] == (work["macs"] + work["acs"]) / work["samples"]
    assert found["max-energy"]["measured"] == pytest.approx(work["energy_pj"], rel=1e-12)
    silent = sum(one["silent"] for one in evaluation["activity"].values())
    assert found["max-dead"]["measured"] == silent
    assert found["min-spike-agreement"]["measured"] == compared["spike_agreement"]
    first, other = compared["answers"]["accuracies"]
    assert found["max-accuracy-drop"]["measured"] == pytest.approx(100 * (first - other))


def test_with_json_there_is_one_object_with_gates_and_error(check: Run) -> None:
    done = check("--min-sparsity", 0.95, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 4
    assert found["ok"] is False
    assert found["error"]["code"] == 4
    assert found["gates"][0]["met"] is False


def test_gates_on_the_file_alone_need_no_network(run: Run, tmp_path: Path) -> None:
    weight = torch.ones(10, 10)
    weight[:9] = 0
    save_file({"fc.weight": weight}, tmp_path / "x.safetensors")
    done = run("check", tmp_path / "x.safetensors", "--min-sparsity", 0.9, "--max-size", "1kB")
    assert done.returncode == 0, done.stderr


def test_a_gate_that_cannot_be_judged_is_an_error_and_not_met(run: Run, tmp_path: Path) -> None:
    save_file({"fc.weight": torch.ones(10, 10)}, tmp_path / "x.safetensors")
    flags = ("--max-sparsity", 0, "--min-accuracy", 0, "--junit", tmp_path / "j.xml")
    done = run("check", tmp_path / "x.safetensors", *flags)
    assert_one_line(done, 3, "--min-accuracy", "cannot be judged", "model")
    assert "NOT JUDGED" in done.stdout
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("errors"), suite.get("failures"), suite.get("tests")) == ("1", "0", "2")


def test_images_without_labels_judge_no_accuracy(
    run: Run, pruned: Path, model_file: Path, tmp_path: Path
) -> None:
    torch.save({"x": torch.rand(8, 1, 28, 28)}, tmp_path / "x.pt")
    flags = ("--data", f"tensors:{tmp_path / 'x.pt'}", "--split", "train")
    done = run("check", pruned, *flags, "--min-accuracy", 0.1, "--max-dead", "100%")
    assert_one_line(done, 3, "--min-accuracy", "no labels")
    compared = ("--baseline", model_file, "--min-spike-agreement", 0.1)
    assert run("check", pruned, *flags, *compared).returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), ("no gate is given", "--min-sparsity")),
        (("--max-accuracy-drop", 1), ("--max-accuracy-drop", "--baseline")),
        (("--min-spike-agreement", 1), ("--min-spike-agreement", "--baseline")),
        (("--min-sparsity", "90"), ("--min-sparsity", "did you mean 0.9?")),
        (("--min-sparsity", "0.9", "--split", "tset"), ("--split",)),
    ],
)
def test_gates_that_make_no_sense_are_refused(
    check: Run, flags: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(check(*flags), 2, *words)


def test_a_junit_file_is_never_the_checkpoint(check: Run, pruned: Path) -> None:
    before = pruned.read_bytes()
    assert_one_line(check("--min-sparsity", 0.9, "--junit", pruned), 5, "output is the input")
    assert pruned.read_bytes() == before


@pytest.mark.parametrize("name", ["p.safetensors", "p.mask.safetensors", "p.report.json"])
def test_a_junit_file_is_nothing_that_prune_writes(
    name: str, run: Run, model_file: Path, tmp_path: Path
) -> None:
    flags = ("--sparsity", 0.5, *PLAIN, "--no-eval", "--force", "-o", tmp_path / "p.safetensors")
    gates = ("--min-sparsity", 0.5, "--junit", tmp_path / name)
    assert_one_line(run("prune", model_file, *flags, *gates), 2, "--junit", "something else too")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report.json", "report.html", "report.md"])
def test_a_junit_file_is_no_page(name: str, check: Run, tmp_path: Path) -> None:
    flags = ("--report", tmp_path / "r", "--junit", tmp_path / "r" / name)
    assert_one_line(check("--min-sparsity", 0.9, *flags), 2, "--junit", "something else too")
    assert list(tmp_path.iterdir()) == []


def test_junit_without_a_gate_is_refused_by_prune_too(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    flags = ("--sparsity", 0.5, "-o", tmp_path / "p.safetensors", "--junit", tmp_path / "j.xml")
    assert_one_line(run("prune", model_file, *flags), 2, "--junit", "no gate is given")


def test_an_energy_without_end_is_refused(check: Run) -> None:
    flags = ("--max-energy", "1uJ", "--energy-ac", "inf")
    assert_one_line(check(*flags), 2, "--energy-ac", "inf is no energy")


def test_prune_writes_its_file_and_its_report_also_where_a_gate_is_not_met(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    out, report = tmp_path / "p.safetensors", tmp_path / "report"
    flags = ("--sparsity", 0.9, *PLAIN, *FEW, "--eval-samples", 64, "-o", out, "--report", report)
    wanted = ("--max-size", 1, "--max-dead", "100%", "--min-spike-agreement", 0.1)
    done = run("prune", model_file, *flags, *wanted, "--junit", tmp_path / "j.xml")
    assert_one_line(done, 4, "1 of 3 gates not met", "--max-size 1")
    assert len(load_file(out)) > 0
    found = json.loads((report / "report.json").read_text())
    assert found["ok"] is False
    assert [one["met"] for one in found["gates"]] == [True, False, True]
    assert "2 of 3 gates met" in (report / "report.html").read_text()
    assert "❌" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "j.xml").exists()


def test_prune_gates_each_of_several_files(run: Run, model_file: Path, tmp_path: Path) -> None:
    flags = ("--sparsity", "0.5,0.9", *PLAIN, "--no-eval", "-o", tmp_path / "p.safetensors")
    done = run("prune", model_file, *flags, "--min-sparsity", 0.7, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 4
    assert [one["ok"] for one in found["files"]] == [False, True]
    assert "p-0.5.safetensors" in found["error"]["file"]


def test_which_of_several_files_met_its_gates_is_said(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    flags = ("--sparsity", "0.5,0.9", *PLAIN, *FEW, "--eval-samples", 64)
    to = ("-o", tmp_path / "p.safetensors", "--report", tmp_path / "r")
    done = run("prune", model_file, *flags, *to, "--min-sparsity", 0.7)
    assert "p-0.5.safetensors: 0 of 1 gates met" in done.stdout
    assert "p-0.9.safetensors: 1 of 1 gates met" in done.stdout
    card = (tmp_path / "r" / "report.md").read_text()
    hashes = [
        found["sha256"]
        for found in json.loads((tmp_path / "r" / "report.json").read_text())["files"][1]["outputs"]
    ]
    assert "## Gates" in card
    assert card.index("NOT MET") < card.index("| met |")
    assert "| before | 0.00 %" in card
    assert "Energy is that of arithmetic alone" in card
    assert "criterion: magnitude (asked for)" in card
    assert all(one in card for one in hashes if one)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--no-eval", "--min-accuracy", 0.5), ("--min-accuracy", "--no-eval")),
        (("--min-accuracy", 50), ("--min-accuracy", "did you mean 0.5?")),
    ],
)
def test_prune_refuses_gates_that_it_could_not_judge_before_any_work(
    run: Run,
    model_file: Path,
    tmp_path: Path,
    flags: tuple[object, ...],
    words: tuple[str, ...],
) -> None:
    out = tmp_path / "p.safetensors"
    done = run("prune", model_file, "--sparsity", 0.5, "-o", out, *flags)
    assert_one_line(done, 2, *words)
    assert not out.exists()


def test_prune_without_a_network_refuses_gates_about_what_it_does(run: Run, tmp_path: Path) -> None:
    save_file({"fc.weight": torch.rand(10, 10)}, tmp_path / "x.safetensors")
    flags = ("--sparsity", 0.5, "-o", tmp_path / "p.safetensors", "--max-dead", 0)
    done = run("prune", tmp_path / "x.safetensors", *flags)
    assert_one_line(done, 3, "--max-dead", "cannot be judged")
    assert not (tmp_path / "p.safetensors").exists()


def test_channels_that_were_removed_are_not_dead(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    flags = ("--structure", "channels", "--sparsity", 0.3, *PLAIN, "--eval-samples", 64)
    done = run("prune", model_file, *flags, "-o", out, "--max-dead", "100%", "--json")
    assert done.returncode == 0, done.stderr
    again = run("check", out, "--max-dead", "100%", *FEW, "--json")
    assert gates(done)["max-dead"]["found"] == gates(again)["max-dead"]["found"]
