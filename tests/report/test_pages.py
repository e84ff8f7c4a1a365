"""Pages of reports: what is on them, and what never is."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from snnprune.report.pages import write_pages, write_report
from snnprune.report.pages.page import (
    format_bytes,
    format_change,
    format_joules,
    format_points,
    percent,
    small_percent,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--samples", 64, "--eval-samples", 64)
PLAIN = ("--criterion", "sf", "--repair", "bn")


@pytest.fixture(scope="module")
def pruned(model_file: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The folder of a report with all the evidence."""
    folder = tmp_path_factory.mktemp("pruned")
    flags = ("--sparsity", "0.8", *PLAIN, *FEW, "-o", folder / "p.safetensors")
    done = run("prune", model_file, *flags, "--report", folder / "report")
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / 'report' / 'report.html'}" in done.stdout
    return folder / "report"


@pytest.fixture(scope="module")
def report(pruned: Path) -> Any:
    return json.loads((pruned / "report.json").read_text())


@pytest.fixture(scope="module")
def html(pruned: Path) -> str:
    return (pruned / "report.html").read_text()


def test_the_page_shows_the_numbers_of_the_report(html: str, report: Any) -> None:
    before, after = report["before"], report["after"]
    work, sizes = report["workload"]["after"], report["sizes"]["after"]
    for text in (
        percent(before["accuracy"], 2),
        percent(after["accuracy"], 2),
        f"{report['totals']['kept']:,}",
        f"{(work['macs'] + work['acs']) / work['samples']:,.0f}",
        format_joules(work["energy_pj"]),
        format_bytes(sizes["packed"]),
        percent(report["agreement"]["spike_agreement"], 2),
        report["inputs"][0]["sha256"],
        report["outputs"][0]["sha256"],
        "snnprune prune",
        *(small_percent(one["flips"]) for one in report["evidence"]["crises"].values()),
    ):
        assert text in html, text


def test_there_is_a_membrane_for_each_neuron_and_a_cut_for_each_layer(
    html: str, report: Any
) -> None:
    assert len(re.findall("Histogram of the membrane potential", html)) == len(
        report["evidence"]["after"]
    )
    assert len(re.findall("Histogram of the scores", html)) == len(report["layers"])


def test_the_page_needs_nothing_and_runs_nothing(html: str) -> None:
    assert len(html) < 2_000_000
    assert "<script" not in html
    assert re.search(r'(?:src|href)="(?!#|data:)', html) is None
    assert re.search(r"url\((?!#)", html) is None
    assert "@import" not in html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "script" not in policy[1]


def test_ids_are_unique_and_references_lead_somewhere(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert set(used) <= set(ids)


def test_pictures_take_their_colours_from_the_page(html: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert pictures
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert re.search(r"#[0-9a-fA-F]{6}", picture) is None
        assert "<style" not in picture


def test_the_same_report_gives_the_same_page(report: Any, pruned: Path, tmp_path: Path) -> None:
    for path in write_pages(tmp_path, report):
        assert path.read_bytes() == (pruned / path.name).read_bytes()


def test_the_card_begins_with_what_a_hub_reads(pruned: Path, report: Any) -> None:
    _, matter, text = (pruned / "report.md").read_text().split("---\n", 2)
    found = yaml.safe_load(matter)
    assert found["base_model"] == "model"
    assert {"spiking-neural-network", "pruning"} <= set(found["tags"])
    assert found["datasets"] == ["fashion-mnist-mini"]
    assert found["pipeline_tag"] == "image-classification"
    (result,) = found["model-index"][0]["results"]
    assert result["task"] == {"type": "image-classification", "name": "Image classification"}
    metrics = {one["type"]: one["value"] for one in result["metrics"]}
    assert metrics["accuracy"] == report["after"]["accuracy"]
    assert metrics["sparsity"] == report["totals"]["pruned"] / report["totals"]["prunable"]
    assert "| weights kept |" in text


def test_tables_of_the_card_have_as_many_cells_as_titles(pruned: Path) -> None:
    text = (pruned / "report.md").read_text()
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def minimal(**more: Any) -> dict[str, Any]:
    return {
        "command": "eval",
        "ok": True,
        "inputs": [],
        "seed": 0,
        "device": "cpu",
        "versions": {},
        "warnings": [],
        "model": None,
        "data": None,
        **more,
    }


EVALUATED = {
    "images": "test",
    "samples": 4,
    "labelled": 4,
    "correct": 3,
    "accuracy": 0.75,
    "loss": None,
    "activity": {},
}


@pytest.mark.parametrize(
    ("data", "tag", "task"),
    [
        ("moving-mini", "video-classification", "video-classification"),
        ("dvs-gesture:frames=16,size=64", "video-classification", "video-classification"),
        ("frames:recordings", "video-classification", "video-classification"),
        ("shd:bins=100", "audio-classification", "audio-classification"),
        ("imagefolder:pictures", "image-classification", "image-classification"),
        ("tensors:x.pt", None, "other"),
        ("own.py:sounds", None, "other"),
    ],
)
def test_the_card_names_the_task_that_the_data_are_for(
    tmp_path: Path, data: str, tag: str | None, task: str
) -> None:
    named = {"name": data, "validation": 0.0}
    inputs = [{"path": "net.pth", "sha256": "0" * 64}]
    write_pages(tmp_path, minimal(data=named, inputs=inputs, evaluation=EVALUATED))
    _, matter, _ = (tmp_path / "report.md").read_text().split("---\n", 2)
    found = yaml.safe_load(matter)
    assert found.get("pipeline_tag") == tag
    (result,) = found["model-index"][0]["results"]
    assert result["task"]["type"] == task


def test_a_name_in_the_card_is_no_markup(tmp_path: Path) -> None:
    evil = "a|b<b>`x`[y](http://z)\n# www.evil.com @you *s* _e_ \x1b"
    write_pages(tmp_path, minimal(warnings=[evil], inputs=[{"path": evil}]))
    _, _, text = (tmp_path / "report.md").read_text().split("---\n", 2)
    for mark in ("|", "<", "`", "[", "](", "\x1b", "www.evil", "://", "@", "*s*", "_e_"):
        assert mark not in text.split("## How")[0], mark


def test_a_report_of_little_makes_a_page_too(tmp_path: Path) -> None:
    names = {path.name for path in write_report(tmp_path, minimal())}
    assert names == {"report.json", "report.html", "report.md"}


def test_columns_of_which_nothing_is_known_are_left_out(tmp_path: Path) -> None:
    channels = {"channels": 4, "silent": 1, "saturated": 0}
    evaluation = {
        "accuracy": None,
        "labelled": 0,
        "samples": 8,
        "activity": {"lif": channels},
        "firing_rates": {"lif": 0.25},
    }
    write_pages(tmp_path, minimal(evaluation=evaluation))
    html = (tmp_path / "report.html").read_text()
    assert "1 of 4" in html
    assert "flips" not in html


@pytest.mark.parametrize("tuned", [True, False])
def test_how_and_why_a_network_was_tuned_is_told(tuned: bool, tmp_path: Path) -> None:
    tuning = {
        "steps": 1234,
        "images": 4096,
        "augment": ["flip"],
        "use_labels": False,
        "learning_rate": 0.02,
        "kept_before": 16292,
        "kept": 3258,
        "loss_at_first": 0.0666,
        "loss_at_goal": 0.0432,
        "loss_at_last": 0.0379,
    }
    why = "too few steps fit into a minute"
    write_pages(tmp_path, minimal(tuning=tuning if tuned else None, tuning_because=why))
    html = (tmp_path / "report.html").read_text()
    assert (f"Tuned so because {why}." in html) is tuned
    assert f"{why}." in html
    told = ("1,234", "4,096 samples, flip", "0.02", "16,292, 3,258", "0.0666", "0.0432", "0.0379")
    assert all((number in html) is tuned for number in told)


@pytest.mark.slow
def test_long_lists_are_cut_and_say_so(tmp_path: Path) -> None:
    membrane = {"channels": 1, "silent": 0, "saturated": 0, "firing_rate": 0.1}
    found = {f"n{i}": {**membrane, "histogram": [0, 3, 4, 0]} for i in range(40)}
    write_pages(tmp_path, minimal(membranes=found, edges=[-1.0, 0.0, 1.0]))
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 36
    assert "The first 36 of 40" in html


def test_numbers_read_well() -> None:
    made = {
        format_change(200, 100): "-50.0 %",
        format_change(100, 100.01): "under 0.1 %",
        format_change(100, 100): "same",
        format_points(0.5, 0.495): "-0.50 points",
        format_joules(0.5): "0.5 pJ",
        format_joules(1_500_000): "1.5 µJ",
        format_bytes(999): "999 bytes",
        format_bytes(1500): "1.5 kB",
        small_percent(0.00012): "0.012 %",
        small_percent(0.09): "9.0 %",
    }
    assert all(text == wanted for text, wanted in made.items())
    assert {
        format_change(0, 5),
        format_change(None, 5),
        percent(None),
        format_points(None, 0.5),
    } == {"–"}


def test_a_report_in_the_way_is_refused_before_any_work(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("mine")
    done = run("eval", model_file, "--samples", 64, "--report", tmp_path)
    assert done.returncode == 5
    assert "report.html: exists already" in done.stderr
    assert "evaluating" not in done.stderr
    assert run("eval", model_file, "--samples", 64, "--report", tmp_path, "--force").returncode == 0
    assert (tmp_path / "report.html").read_text() != "mine"


@pytest.mark.many(2)
@pytest.mark.parametrize(
    "command",
    [
        ("calibrate", "-o", "c.safetensors", "--samples", 64),
        ("score", "-o", "s.safetensors", "--samples", 64),
        ("eval", "--samples", 64),
        ("check", "--max-sparsity", 0.5),
        ("export", "--to", "dense", "-o", "d.safetensors"),
    ],
    ids=lambda command: str(command[0]),
)
def test_every_command_that_measures_leaves_pages(
    command: tuple[object, ...],
    run: Run,
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *flags = command
    done = run(name, model_file, *flags, "--report", "here", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(Path("here/report.json").read_text()) == json.loads(done.stdout)
    assert f"<h1>snnprune {name}</h1>" in Path("here/report.html").read_text()
