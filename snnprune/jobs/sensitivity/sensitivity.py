"""From a checkpoint to what each layer costs, and to sparsities that cost little together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snnprune.agreement import Agreement, about_agreement
from snnprune.allocation.curves import cheapest
from snnprune.batches import Batches
from snnprune.calibration import Calibration
from snnprune.files import together, write_json, write_text
from snnprune.jobs.calibrate import calibrated, knowing_its_data, read_calibration_for
from snnprune.jobs.cost import Cost
from snnprune.jobs.pruning.cutting import LayerCutting
from snnprune.jobs.pruning.repairing import choose_repair
from snnprune.jobs.pruning.validation import validation_of
from snnprune.jobs.score import not_used, one_shot
from snnprune.jobs.sensitivity.files import about_trial, draw, fragment, shortest
from snnprune.jobs.sensitivity.options import (
    CRITERION,
    FRAGMENT,
    REPORT,
    SensitivityOptions,
    require_reach,
    require_sense,
)
from snnprune.jobs.sensitivity.trials import Bench, Trial
from snnprune.jobs.subjects.opening import open_subject
from snnprune.jobs.subjects.reporting import report_on
from snnprune.jobs.subjects.subject import Subject
from snnprune.one_shot import Plan
from snnprune.pages import write_pages
from snnprune.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What came of it."""

    plan: Plan
    trials: tuple[Trial, ...]
    sizes: dict[str, int]
    counts: dict[str, int]
    """Weights to prune of each layer, for the least summed divergence."""
    together: Agreement
    """With all layers pruned so."""
    split: str
    """Which images it was measured on."""
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def dense(self) -> float | None:
        """The accuracy of the dense network, in [0, 1]; None without labels."""
        answers = self.together.answers
        return answers.accuracies[0] if answers else None


def measure_sensitivity(options: SensitivityOptions, progress: Progress) -> Sensitivity:
    """Prune each layer alone to each sparsity, and compare with the dense network.

    Each trial takes one repair on the calibration images and one pass over those to compare on,
    each layer one pass of the dense network besides. At the end all layers together are pruned, to
    the sparsities of the recipe.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then.
    """
    require_sense(options)
    work = _Work(options, progress)
    with work.cost.stage("trials"):
        trials = tuple(work.bench.layers(options.sparsities, progress))
    counts = work.counts(trials)
    with work.cost.stage("together"):
        cut, together = work.bench.together(work.cutting(counts), options.target)
    found = Sensitivity(
        plan=work.bench.plan.names,
        trials=trials,
        sizes=work.sizes,
        counts=counts,
        together=together,
        split=work.split,
    )
    found = replace(found, report=work.report(found, cut.warnings))
    if options.folder is not None:
        _write(options, found)
    return found


class _Work:
    """A checkpoint, opened and scored, and what it is measured on."""

    def __init__(self, options: SensitivityOptions, progress: Progress) -> None:
        self.options, self.cost = options, Cost()
        self.subject = open_subject(knowing_its_data(options.subject, options.calibration))
        self.subject.require_runnable()
        self.subject.prunable.require_one_by_one()
        weights = self.subject.find_weights()
        self.sizes = {key: weight.numel() for key, weight in weights.items()}
        self.zeros = {key: int((weight == 0).sum()) for key, weight in weights.items()}
        require_reach(options, self.sizes.values())
        plan = Plan(
            criterion=options.criterion or CRITERION,
            repair=choose_repair(self.subject, options.repair),
        )
        with self.cost.stage("calibration"):
            self.calibration = _calibration(options, self.subject, progress)
        self.split, images = _images(options, self.subject, self.calibration)
        one = one_shot(self.subject, self.calibration, progress)
        with self.cost.stage("scoring"):
            loaded = plan.load()
            self.scores = one.scores(loaded)
        self.bench = Bench(subject=self.subject, work=one, plan=loaded, images=images)

    def counts(self, trials: Sequence[Trial]) -> dict[str, int]:
        """How many weights of each layer to prune, for the least summed divergence."""
        curves = {key: [(zeros / self.sizes[key], 0.0)] for key, zeros in self.zeros.items()}
        for trial in trials:
            curves[trial.weight].append((trial.pruned / trial.weights, trial.divergence))
        count = round(self.options.target * sum(self.sizes.values()))
        return cheapest(curves, self.sizes, count)

    def cutting(self, counts: Mapping[str, int]) -> LayerCutting:
        """Cuts all layers as the recipe will."""
        own = {key: shortest(count, self.sizes[key]) for key, count in counts.items()}
        return LayerCutting(own, self.bench.plan, self.options.target)

    def report(self, found: Sensitivity, warnings: Sequence[str]) -> dict[str, Any]:
        """What came of it, as JSON."""
        return report_on(
            self.subject,
            "sensitivity",
            warnings=(*self.calibration.warnings, *not_used(self.scores), *warnings),
            criterion=found.plan.criterion,
            repair=found.plan.repair,
            split=found.split,
            samples=found.together.samples,
            calibration_samples=self.calibration.samples,
            dense_accuracy=found.dense,
            sparsities=list(self.options.sparsities),
            trials=[about_trial(trial) for trial in found.trials],
            recipe={
                "sparsity": self.options.target,
                "pruned": found.counts,
                "weights": found.sizes,
                "together": about_agreement(found.together),
            },
            cost=self.cost.report(self.subject.device),
        )


def _calibration(options: SensitivityOptions, subject: Subject, progress: Progress) -> Calibration:
    if options.calibration is not None:
        return read_calibration_for(subject, options.calibration)
    return calibrated(subject, progress)


def _images(
    options: SensitivityOptions, subject: Subject, calibration: Calibration
) -> tuple[str, Batches]:
    """Which images to compare on, and these.

    Raises:
        InputError: there are none of that split.
    """
    limit, split = options.eval_samples, options.split
    if split != "validation":
        return split, subject.batches(split, limit)
    found = validation_of(subject, calibration, limit)
    return found.split, found.batches


def _write(options: SensitivityOptions, found: Sensitivity) -> None:
    """Write report, recipe and pictures together, where a folder is given."""
    recipe = fragment(found.plan, options.target, found.counts, found.sizes)
    with together(*options.files) as staged:
        place = staged[0].parent
        write_text(place / FRAGMENT, recipe)
        draw(place, found.trials, found.dense, _conditions(found))
        write_json(place / REPORT, found.report)
        write_pages(place, found.report)


def _conditions(found: Sensitivity) -> str:
    """What the numbers of the pictures depend on."""
    model, data = found.report["model"], found.report["data"]
    names = [one["name"] for one in (model, data) if one]
    dense = [] if found.dense is None else [f"dense {found.dense:.1%}"]
    how = f"criterion {found.plan.criterion}, repair {found.plan.repair}"
    images = f"{found.together.samples:,} {found.split} images"
    return ", ".join([*names, how, images, *dense]) + "\none layer pruned alone, the others dense"
