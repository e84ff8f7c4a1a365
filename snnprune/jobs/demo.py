"""`snnprune demo`: train, calibrate, prune, repair, evaluate, on images that come with the tool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.files.writing import write_text
from snnprune.jobs.calibrate import calibrate_target
from snnprune.jobs.options import DemoOptions
from snnprune.jobs.prune.combining import BEST, load_pruned_tensors
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.scoring import make_one_shot
from snnprune.jobs.targets.target import Target
from snnprune.jobs.train.looping import LoopOptions
from snnprune.jobs.train.train import train_recipe
from snnprune.masks import count_prunable, count_pruned
from snnprune.measure.calibration import Calibration, write_calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.quantities import Natural, Share
from snnprune.recipe.loading import load_recipe
from snnprune.report.frame import describe_evaluation
from snnprune.report.pages.writing import write_report
from snnprune.report.plots.accuracy import AccuracyLevel, Curve, CurveMark, plot_accuracy
from snnprune.report.plots.canvas import LineStyle
from snnprune.report.provenance import make_metadata
from snnprune.runtime import Progress
from snnprune.text import format_percent, format_table
from snnprune.training.runs.opening import require_ready

RECIPE = "fashion-mnist-mini"
TABLE, PICTURES = "table.md", ("accuracy.svg", "accuracy.png")
OUTPUTS = ("calibration.safetensors", TABLE, *PICTURES)
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
PLANS = (
    Plan(criterion="magnitude", repair="none"),
    Plan(criterion="magnitude", repair="bn"),
    Plan(criterion="sf", repair="none"),
    Plan(criterion="sf", repair="bn"),
    BEST,
)
COLORS = {"magnitude": "#D55E00", "sf": "#0072B2", BEST.criterion: "#009E73"}
REPAIRED = {"none": "not repaired", "bn": "BatchNorm repaired", BEST.repair: "weights repaired"}
LOOKS = {
    "none": {"marker": "s", "dashes": "--"},
    "bn": {"marker": "o", "dashes": "-"},
    BEST.repair: {"marker": "D", "dashes": "-"},
}


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

    def is_of(self, plan: Plan) -> bool:
        """Whether that plan made it."""
        return (self.criterion, self.repair) == (plan.criterion, plan.repair)


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
            checkpoint=run / "model.safetensors", device=options.device, seed=options.seed
        )
    )
    calibration = calibrate_target(target, progress)
    dense = _evaluate_test(target)
    work = make_one_shot(target, calibration)
    variants = list(product(PLANS, SPARSITIES))
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
    tensors = load_pruned_tensors(target, cut.masks, work.tensors())
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
        "pruned in one shot, no training afterwards"
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
    body = [
        (
            *(plan.criterion, plan.repair),
            *(f"{100 * point.accuracy:.1f}" for point in points if point.is_of(plan)),
        )
        for plan in PLANS
    ]
    accuracy = format_percent(dense.accuracy or 0.0, sign=" %")
    return f"{format_table(titles, body)}\n\nDense: {accuracy} of {dense.labelled:,} test images.\n"


def _make_curves(points: Sequence[DemoMeasurement]) -> list[Curve]:
    return [
        Curve(
            label=f"{plan.criterion}, {REPAIRED[plan.repair]}",
            marks=[
                CurveMark(sparsity=point.sparsity, level=AccuracyLevel(mean=point.accuracy))
                for point in points
                if point.is_of(plan)
            ],
            look=LineStyle(color=COLORS[plan.criterion], **LOOKS[plan.repair]),
        )
        for plan in PLANS
    ]
