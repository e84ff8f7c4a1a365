"""docs/files.md names exactly what is in real files."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doc_blocks import blocks_of, first_column, in_folder, table_under
from safetensors import safe_open
from safetensors.torch import load_file
from valid_reports import assert_valid

from snnprune.checkpoint.mask_file import read_masks
from snnprune.jobs import demo
from snnprune.jobs.options import DemoOptions
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.sweeps import run_seeds
from snnprune.jobs.train.train import JOBS
from snnprune.recipe.loading import load_recipe
from snnprune.runtime import SILENT

Run = Callable[..., subprocess.CompletedProcess[str]]
Pruning = tuple[Path, Any]
PAGE = "files.md"
FEW = ("--samples", 64)
RUN = ("Files of the run folder", "What a run that prunes adds")


@pytest.fixture
def work(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with `model.safetensors`."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_file, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def pruning(model_file: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Pruning:
    """A folder with `model.safetensors`, pruned by default, and the report of that."""
    folder = tmp_path_factory.mktemp("pruning")
    shutil.copy(model_file, folder)
    flags = (
        "--sparsity",
        0.9,
        "-o",
        "pruned.safetensors",
        "--eval-samples",
        64,
        *FEW,
        "--tune-steps",
        16,
    )
    with in_folder(folder):
        return folder, report_of(run, "prune", "model.safetensors", *flags)


@pytest.fixture
def pruned(pruning: Pruning, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The report; the folder is the current one."""
    monkeypatch.chdir(pruning[0])
    return pruning[1]


def report_of(run: Run, *arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def metadata_of(file: str) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def assert_documented(report: dict[str, Any]) -> None:
    assert_valid(report)
    command = report["command"].replace("analyze quantize", "analyze")
    common, own = (first_column(PAGE, f"Keys of {what}") for what in ("every report", command))
    assert set(report) == common | own
    assert not common & own


@pytest.mark.many(2)
@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "model.safetensors"),
        ("calibrate", "model.safetensors", "-o", "statistics.safetensors", *FEW),
        ("score", "model.safetensors", *FEW),
        ("eval", "model.safetensors", *FEW),
        ("check", "model.safetensors", "--max-sparsity", 0),
        ("theory", "crisis", "model.safetensors", *FEW),
        ("analyze", "quantize", "model.safetensors", "--bits", 4, *FEW),
        ("theory", "width"),
        ("theory", "construct", "--trials", 3, "--neurons", 2),
        ("export", "model.safetensors", "--to", "dense", "-o", "dense.safetensors"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_the_keys_of_a_report_are_the_documented_ones(
    command: tuple[object, ...], work: Path, run: Run
) -> None:
    assert_documented(report_of(run, *command))


def test_the_keys_of_a_pruning_report_and_of_all_in_it_are_the_documented_ones(
    pruned: Any,
) -> None:
    assert json.loads(Path("pruned.report.json").read_text()) == pruned
    assert_documented(pruned)
    assert set(pruned["totals"]) == first_column(PAGE, "Keys of totals")
    assert set(pruned["layers"][0]) == first_column(PAGE, "Keys of a layer")
    assert set(pruned["after"]) == first_column(PAGE, "Keys of an evaluation")


def test_the_evidence_in_a_pruning_report_is_the_documented_one(work: Path, run: Run) -> None:
    flags = ("--sparsity", 0.9, "--criterion", "magnitude", "--repair", "none", *FEW)
    gate = ("--max-dead", "100%", "--eval-samples", 64, "--report", "report")
    report = report_of(run, "prune", "model.safetensors", *flags, *gate, "-o", "p.safetensors")
    assert json.loads(Path("report/report.json").read_text()) == report
    evidence = report["evidence"]
    assert set(evidence) == first_column(PAGE, "Keys of evidence")
    (membrane, *_), (histogram, *_) = evidence["after"].values(), evidence["scores"].values()
    assert set(membrane) == first_column(PAGE, "Keys of a membrane")
    assert set(histogram) == first_column(PAGE, "Keys of a score histogram")
    assert set(report["gates"][0]) == first_column(PAGE, "Keys of a gate")
    assert set(report["workload"]["after"]) == first_column(PAGE, "Keys of a workload")


def test_the_run_folder_and_its_report_are_the_documented_ones(small: Path) -> None:
    names = {path.name for path in small.iterdir()}
    assert names == first_column(PAGE, "Files of the run folder")
    assert_documented(json.loads((small / "report.json").read_text()))


@pytest.mark.slow
def test_the_reports_of_tickets_are_the_documented_ones(tmp_path: Path) -> None:
    settings = ["data.validation=0.95", "imp.methods=[imp]", "imp.sparsities=[0.5]", "seeds=[0, 1]"]
    recipe = load_recipe("smoke", [*settings, "model.args.width=2"])
    out = tmp_path / "run"
    options = LoopOptions(command="imp", recipe=recipe, out=out, device="cpu")
    together = run_seeds(JOBS["imp"], options).report
    assert_valid(dict(together))
    common = first_column(PAGE, "Keys of every report")
    assert set(together) == common | first_column(PAGE, "Keys of several seeds")
    alone = json.loads((out / "seed-0" / "report.json").read_text())
    assert_documented(alone)
    assert all(set(row) == first_column(PAGE, "Keys of a ticket") for row in alone["tickets"])
    shown = {path.name for path in out.iterdir() if path.suffix in (".png", ".md", ".html")}
    documented = [first_column(PAGE, what) for what in RUN]
    assert shown < documented[0] | documented[1]


def test_the_keys_of_the_report_of_demo_are_the_documented_ones(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(options: Any, progress: object) -> None:
        shutil.copytree(small, options.out)

    monkeypatch.setattr(demo, "train_recipe", copied)
    monkeypatch.setattr(demo, "SPARSITIES", (0.9,))
    monkeypatch.setattr(demo, "ROWS", demo.ROWS[:1])
    found = demo.run_demo(DemoOptions(out=tmp_path / "demo"), SILENT).report
    # the columns of points are named in one cell
    assert_documented(found)
    described = dict(table_under(PAGE, "Keys of demo"))["points"]
    assert all(key in described for key in found["points"][0])


def test_the_metadata_of_the_pruned_file_is_the_documented_one(pruned: Any) -> None:
    found = metadata_of("pruned.safetensors")
    assert set(found) == first_column(PAGE, "Metadata of the pruned file")
    assert metadata_of("pruned.mask.safetensors").items() > found.items()


def test_the_example_reads_the_masks(pruned: Any) -> None:
    block, _ = (block for block in blocks_of(PAGE) if block.language == "python")
    masks = block.run_as_python()["masks"]
    expected = read_masks(Path("pruned.mask.safetensors"))
    assert masks.keys() == expected.keys()
    assert all((masks[key] == expected[key].numpy()).all() for key in expected)


def test_the_integers_and_their_report_are_as_documented(work: Path, run: Run) -> None:
    flags = ("--sparsity", 0.9, "--bits", 4, "--criterion", "magnitude", "--no-eval", *FEW)
    report = report_of(run, "prune", "model.safetensors", *flags, "-o", "quantized.safetensors")
    assert_documented(report)
    found = report["quantization"]
    assert set(found) == first_column(PAGE, "Keys of quantization")
    (layer, *_) = found["layers"].values()
    assert set(layer) == first_column(PAGE, "Keys of a quantized layer")
    documented = first_column(PAGE, "Metadata of the pruned file")
    assert set(metadata_of("quantized.safetensors")) == documented | {"snnprune.bits"}
    _, block = (block for block in blocks_of(PAGE) if block.language == "python")
    weights, expected = block.run_as_python()["weights"], load_file("quantized.safetensors")
    assert weights.keys() == found["layers"].keys()
    assert all((weights[key] == expected[key].numpy()).all() for key in weights)


def test_a_score_file_is_as_documented(work: Path, run: Run) -> None:
    flags = ("--sparsity", 0.5, "--criterion", "magnitude", "--no-eval", "-o", "p.safetensors")
    assert run("prune", "model.safetensors", *flags).returncode == 0
    done = run("score", "p.safetensors", "-o", "s.safetensors", *FEW)
    assert done.returncode == 0, done.stderr
    assert set(metadata_of("s.safetensors")) == first_column(PAGE, "Metadata of the score file")
    scores, weights = load_file("s.safetensors"), load_file("p.safetensors")
    assert all(scores[key].dtype == torch.float32 for key in scores)
    assert all(bool((scores[key][weights[key] == 0] == -torch.inf).all()) for key in scores)
    last = "classifier.weight"  # by magnitude, on the file's scale
    torch.testing.assert_close(scores[last], weights[last].abs().log())


def test_a_calibration_file_is_as_documented(work: Path, run: Run) -> None:
    done = run("calibrate", "model.safetensors", "-o", "c.safetensors", *FEW)
    assert done.returncode == 0, done.stderr
    found = metadata_of("c.safetensors")
    assert set(found) == first_column(PAGE, "Metadata of the calibration file")
    rows = table_under(PAGE, "Tensors of the calibration file")
    documented = {row[0].partition("/")[0]: (row[1], row[2]) for row in rows}
    tensors, weights = load_file("c.safetensors"), load_file("model.safetensors")
    steps = json.loads(found["snnprune.calibration"])["time_steps"]
    assert {name.partition("/")[0] for name in tensors} == documented.keys()
    for name, tensor in tensors.items():
        shape, dtype = documented[name.partition("/")[0]]
        shape = shape.replace("T,", f"{steps},")
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert list(tensor.shape) == expanded(shape, name.partition("/")[2], weights)


def expanded(shape: str, name: str, weights: dict[str, torch.Tensor]) -> list[int]:
    """The numbers that a shape such as `(C_out, 130)` stands for."""
    weight = weights.get(name)
    if weight is None:  # a neuron: as many channels as its layer puts out
        weight = weights.get(name.replace("neuron", "conv.weight"))
    channels = {} if weight is None else {"C_out": weight.shape[0], "C_in": weight.shape[1]}
    parts = shape.strip("()").split(", ")
    return [channels[part] if part in channels else int(part) for part in parts]
