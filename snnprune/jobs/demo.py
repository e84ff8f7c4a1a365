"""`snnprune demo`: train, calibrate, prune, repair, evaluate, on images that come with the tool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import format_percent, format_table
from snnprune.files.writing import write_text
from snnprune.jobs.calibrate import calibrate_target
from snnprune.jobs.options import DemoOptions
from snnprune.jobs.prune.methods import BEST, BY_SIZE
from snnprune.jobs.prune.pruned_model import build_and_load_tensors
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import (
    make_target_report,
)
from snnprune.jobs.targets.target import Target, make_one_shot
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.train import train_recipe
from snnprune.masks import count_prunable, count_pruned
from snnprune.measure import Natural, Share
from snnprune.measure.calibration import Calibration, write_calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.pruning.repair import TUNE, TuneSettings
from snnprune.recipe.loading import load_recipe
from snnprune.report import describe_evaluation
from snnprune.report.pages import write_report
from snnprune.report.plots.accuracy import AccuracyLevel, Curve, CurveMark, plot_accuracy
from snnprune.report.plots.canvas import LineStyle
from snnprune.runtime import Progress
from snnprune.training.runs.ownership import require_ready

RECIPE = "fashion-mnist-mini"
TABLE, PICTURES = "table.md", ("accuracy.svg", "accuracy.png")
OUTPUTS = ("calibration.safetensors", TABLE, *PICTURES)
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One way to prune, and how its curve is drawn."""

    plan: Plan
    label: str
    look: LineStyle
    only: tuple[float, ...] | None = None
    """The sparsities that it is shown at; None: all."""

    @property
    def name(self) -> tuple[str, str]:
        """What tells it from the others."""
        return self.plan.criterion, self.plan.repair


SQUARES, CIRCLES = {"marker": "s", "dashes": "--"}, {"marker": "o", "dashes": "-"}
DIAMONDS = {"marker": "D", "dashes": "-"}
ROWS = (
    DemoRow(
        plan=Plan(criterion="magnitude"),
        label="magnitude, not repaired",
        look=LineStyle(color="#D55E00", **SQUARES),
    ),
    DemoRow(
        plan=Plan(criterion="magnitude", repair="bn"),
        label="magnitude, BatchNorm repaired",
        look=LineStyle(color="#D55E00", **CIRCLES),
    ),
    DemoRow(
        plan=Plan(criterion="sf"),
        label="sf, not repaired",
        look=LineStyle(color="#0072B2", **SQUARES),
    ),
    DemoRow(
        plan=Plan(criterion="sf", repair="bn"),
        label="sf, BatchNorm repaired",
        look=LineStyle(color="#0072B2", **CIRCLES),
    ),
    DemoRow(
        plan=replace(BY_SIZE, repair=BEST.repair),
        label="weights fitted anew (--no-tune)",
        look=LineStyle(color="#56B4E9", **DIAMONDS),
    ),
    DemoRow(
        plan=replace(BY_SIZE, repair=TUNE, tuning=TuneSettings(steps=480, augment=("flip",))),
        label="tuned while pruned (default)",
        look=LineStyle(color="#009E73", **DIAMONDS),
        only=(0.9, 0.95),  # as the number of steps: the demo is to end within minutes
    ),
)


@dataclass(frozen=True, kw_only=True)
class DemoMeasurement:
    """One pruned network, measured on the test images."""

    criterion: str
    repair: str
    sparsity: Share
    pruned: Natural
    prunable: Natural
    correct: Natural
    labelled: Natural

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.correct / self.labelled

    def is_of(self, row: DemoRow, sparsity: float) -> bool:
        """Whether it was made that way."""
        return (self.criterion, self.repair, self.sparsity) == (*row.name, sparsity)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The whole story."""

    dense: Evaluation
    points: tuple[DemoMeasurement, ...]
    minutes: float
    report: dict[str, Any]


def run_demo(options: DemoOptions, progress: Progress) -> DemoResult:
    """Tell the story and leave it in a folder."""
    start = time.monotonic()
    require_ready(options.out, resume=False, force=options.force)
    recipe = load_recipe(RECIPE, [f"seed={options.seed}"])
    run = options.out / "training"
    train_recipe(
        LoopOptions(recipe=recipe, out=run, device=options.device, force=options.force), progress
    )
    target = open_target(
        TargetOptions(
            checkpoint=run / "model.safetensors",
            device=options.device,
            seed=options.seed,
            used=options.used,
        )
    )
    calibration = calibrate_target(target, progress)
    dense = _evaluate_test(target)
    work = make_one_shot(target, calibration, tuning_images=TuneSettings().images)
    variants = [(row.plan, sparsity) for row in ROWS for sparsity in row.only or SPARSITIES]
    points = tuple(
        _prune_point(target, work, options.out / "pruned", *variant)
        for variant in progress.track(variants, label="pruning", total=len(variants))
    )
    found = DemoResult(
        dense=dense,
        points=points,
        minutes=(time.monotonic() - start) / 60,
        report=_make_report(options.out, target, dense, points, calibration.warnings),
    )
    _write(options, target, calibration, found)
    return found


def _evaluate_test(target: Target) -> Evaluation:
    return evaluate(target.require_runnable(), target.batches("test"))


def _prune_point(
    target: Target, work: OneShot, folder: Path, plan: Plan, sparsity: float
) -> DemoMeasurement:
    """Prune one way, write the file, measure it."""
    cut = work.prune(plan, sparsity)
    tensors = build_and_load_tensors(target, cut.masks, work.tensors())
    metadata = make_metadata(
        "demo",
        model=target.spec,
        data=target.data_spec,
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        source_sha256=target.checkpoint.sha256,
    )
    name = f"{plan.criterion}-{plan.repair}-{round(100 * sparsity)}.safetensors"
    write_safetensors(folder / name, tensors, metadata)
    after = _evaluate_test(target)
    return DemoMeasurement(
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        pruned=count_pruned(cut.masks),
        prunable=count_prunable(cut.masks),
        correct=after.correct,
        labelled=after.labelled,
    )


def _make_report(
    folder: Path,
    target: Target,
    dense: Evaluation,
    points: Sequence[DemoMeasurement],
    warnings: Sequence[str],
) -> dict[str, Any]:
    return make_target_report(
        target,
        "demo",
        dense=describe_evaluation(dense),
        points=[asdict(point) for point in points],
        warnings=warnings,
        outputs=[{"path": str(folder / name)} for name in OUTPUTS],
    )


def _write(
    options: DemoOptions,
    target: Target,
    calibration: Calibration,
    found: DemoResult,
) -> None:
    folder, dense = options.out, found.dense
    write_calibration(folder / OUTPUTS[0], calibration, make_metadata("demo"))
    write_text(folder / TABLE, format_markdown_table(found.points, dense))
    assert target.spec is not None
    assert target.data_spec is not None
    conditions = (
        f"{target.spec.name}, {target.data_spec.name}, T = {calibration.time_steps}, "
        f"{dense.labelled:,} test images, seed {options.seed}\n"
        "pruned in one shot, on images without labels"
    )
    plot_accuracy(
        [folder / name for name in PICTURES],
        _make_curves(found.points),
        dense=AccuracyLevel(mean=dense.accuracy or 0.0),
        conditions=conditions,
    )
    write_report(folder, found.report)


def format_markdown_table(points: Sequence[DemoMeasurement], dense: Evaluation) -> str:
    """Accuracies in percent: a row per criterion and repair, a column per sparsity."""
    titles = ("criterion", "repair", *(format_percent(sparsity, 0) for sparsity in SPARSITIES))
    body = [(*row.name, *(_format_cell(points, row, s) for s in SPARSITIES)) for row in ROWS]
    accuracy = format_percent(dense.accuracy or 0.0, sign=" %")
    return f"{format_table(titles, body)}\n\nDense: {accuracy} of {dense.labelled:,} test images.\n"


def _format_cell(points: Sequence[DemoMeasurement], row: DemoRow, sparsity: float) -> str:
    found = [point for point in points if point.is_of(row, sparsity)]
    return f"{100 * found[0].accuracy:.1f}" if found else ""


def _make_curves(points: Sequence[DemoMeasurement]) -> list[Curve]:
    return [
        Curve(
            label=row.label,
            marks=[
                CurveMark(sparsity=point.sparsity, level=AccuracyLevel(mean=point.accuracy))
                for point in points
                if point.is_of(row, point.sparsity)
            ],
            look=row.look,
        )
        for row in ROWS
    ]
