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
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.prune.combining import BEST, pruned_tensors
from snnprune.jobs.score import one_shot
from snnprune.jobs.targets.opening import open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.reporting import report_on
from snnprune.jobs.targets.target import Subject
from snnprune.jobs.train.looping import LoopOptions
from snnprune.jobs.train.train import train_recipe
from snnprune.masks import prunable, pruned
from snnprune.measure.calibration import Calibration, write_calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.pruning.oneshot import OneShot, Plan
from snnprune.quantities import Natural, Share
from snnprune.recipe.loading import load_recipe
from snnprune.report.frame import about_evaluation
from snnprune.report.pages.writing import write_report
from snnprune.report.plots.accuracy import Curve, Level, Mark, plot_accuracy
from snnprune.report.plots.canvas import Look
from snnprune.report.provenance import described
from snnprune.runtime import Progress
from snnprune.text import percent, table
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
class DemoOptions:
    """What the command line asks for."""

    out: Path
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Point:
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
class Demonstrated:
    """The whole story."""

    dense: Evaluation
    points: tuple[Point, ...]
    minutes: float
    report: dict[str, Any]


def run_demo(options: DemoOptions, progress: Progress) -> Demonstrated:
    """Tell the story and leave it in a folder."""
    start = time.monotonic()
    require_ready(options.out, resume=False, force=options.force)
    recipe = load_recipe(RECIPE, [f"seed={options.seed}"])
    run = options.out / "training"
    train_recipe(
        LoopOptions(recipe=recipe, out=run, device=options.device, force=options.force), progress
    )
    subject = open_subject(
        SubjectOptions(
            checkpoint=run / "model.safetensors", device=options.device, seed=options.seed
        )
    )
    calibration = calibrated(subject, progress)
    dense = _evaluated(subject)
    work = one_shot(subject, calibration)
    variants = list(product(PLANS, SPARSITIES))
    points = tuple(
        _pruned_point(subject, work, options.out / "pruned", *variant)
        for variant in progress.track(variants, label="pruning", total=len(variants))
    )
    found = Demonstrated(
        dense=dense,
        points=points,
        minutes=(time.monotonic() - start) / 60,
        report=_report(options.out, subject, dense, points, calibration.warnings),
    )
    _write(options, subject, calibration, found)
    return found


def _evaluated(subject: Subject) -> Evaluation:
    return evaluate(subject.require_runnable(), subject.batches("test"))


def _pruned_point(
    subject: Subject, work: OneShot, folder: Path, plan: Plan, sparsity: float
) -> Point:
    """Prune one way, write the file, measure it."""
    cut = work.prune(plan, sparsity)
    tensors = pruned_tensors(subject, cut.masks, work.tensors())
    metadata = described(
        "demo",
        model=subject.spec,
        data=subject.data_spec,
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        source_sha256=subject.checkpoint.sha256,
    )
    name = f"{plan.criterion}-{plan.repair}-{round(100 * sparsity)}.safetensors"
    write_safetensors(folder / name, tensors, metadata)
    after = _evaluated(subject)
    return Point(
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        pruned=pruned(cut.masks),
        prunable=prunable(cut.masks),
        correct=after.correct,
        labelled=after.labelled,
    )


def _report(
    folder: Path,
    subject: Subject,
    dense: Evaluation,
    points: Sequence[Point],
    warnings: Sequence[str],
) -> dict[str, Any]:
    return report_on(
        subject,
        "demo",
        dense=about_evaluation(dense),
        points=[asdict(point) for point in points],
        warnings=warnings,
        outputs=[{"path": str(folder / name)} for name in OUTPUTS],
    )


def _write(
    options: DemoOptions,
    subject: Subject,
    calibration: Calibration,
    found: Demonstrated,
) -> None:
    folder, dense = options.out, found.dense
    write_calibration(folder / OUTPUTS[0], calibration, described("demo"))
    write_text(folder / TABLE, markdown_table(found.points, dense))
    assert subject.spec is not None
    assert subject.data_spec is not None
    conditions = (
        f"{subject.spec.name}, {subject.data_spec.name}, T = {calibration.time_steps}, "
        f"{dense.labelled:,} test images, seed {options.seed}\n"
        "pruned in one shot, no training afterwards"
    )
    plot_accuracy(
        [folder / name for name in PICTURES],
        _curves(found.points),
        dense=Level(mean=dense.accuracy or 0.0),
        conditions=conditions,
    )
    write_report(folder, found.report)


def markdown_table(points: Sequence[Point], dense: Evaluation) -> str:
    """Accuracies in percent: a row per criterion and repair, a column per sparsity."""
    titles = ("criterion", "repair", *(percent(sparsity, 0) for sparsity in SPARSITIES))
    body = [
        (
            *(plan.criterion, plan.repair),
            *(f"{100 * point.accuracy:.1f}" for point in points if point.is_of(plan)),
        )
        for plan in PLANS
    ]
    accuracy = percent(dense.accuracy or 0.0, sign=" %")
    return f"{table(titles, body)}\n\nDense: {accuracy} of {dense.labelled:,} test images.\n"


def _curves(points: Sequence[Point]) -> list[Curve]:
    return [
        Curve(
            label=f"{plan.criterion}, {REPAIRED[plan.repair]}",
            marks=[
                Mark(sparsity=point.sparsity, level=Level(mean=point.accuracy))
                for point in points
                if point.is_of(plan)
            ],
            look=Look(color=COLORS[plan.criterion], **LOOKS[plan.repair]),
        )
        for plan in PLANS
    ]
