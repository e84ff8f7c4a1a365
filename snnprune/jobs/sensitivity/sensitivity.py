"""From a checkpoint to what each layer costs, and to sparsities that cost little together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from snnprune.data.batches import Batches
from snnprune.errors.text import layer_name
from snnprune.files.together import replace_together
from snnprune.files.writing import write_json, write_text
from snnprune.jobs.calibrate import (
    calibrate_target,
    fill_data_from_statistics,
    read_calibration_for,
)
from snnprune.jobs.environment import StageTimer
from snnprune.jobs.prune.combining import choose_repair
from snnprune.jobs.prune.cutting import LayerCutting
from snnprune.jobs.prune.target_sparsity import choose_validation
from snnprune.jobs.sensitivity.checking import require_reach, require_sense
from snnprune.jobs.sensitivity.options import (
    CRITERION,
    FRAGMENT,
    PICTURES,
    REPORT,
    SensitivityOptions,
)
from snnprune.jobs.sensitivity.trials import LayerTrial, TrialBench, make_trial_row
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.scoring import make_one_shot, warn_of_unused_criterion
from snnprune.jobs.targets.target import Target
from snnprune.measure.agreement import Agreement, AgreementRow, make_agreement_row
from snnprune.measure.calibration import Calibration
from snnprune.measure.quantities import Natural, Share
from snnprune.pruning.allocation.curves import choose_cheapest
from snnprune.pruning.oneshot import Plan
from snnprune.recipe.dumping import dump_settings
from snnprune.recipe.pruning import PruneRecipe, PruneSection
from snnprune.report.pages.writing import write_pages
from snnprune.report.plots.layers import plot_sensitivity
from snnprune.runtime import Progress

Rows = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """The sparsities that cost little together, as the report has them."""

    sparsity: Share
    pruned: Mapping[str, Natural]
    weights: Mapping[str, Natural]
    together: AgreementRow
    """Of the whole network pruned so and the dense one."""


def group_by_layer(
    trials: Sequence[LayerTrial], value: Callable[[LayerTrial], float | None]
) -> Rows:
    """A value of each trial, by layer in the order of the sparsities."""
    keys = dict.fromkeys(trial.weight for trial in trials)
    return {key: [value(trial) for trial in trials if trial.weight == key] for key in keys}


def format_fragment(
    plan: Plan, sparsity: float, counts: Mapping[str, int], sizes: Mapping[str, int]
) -> str:
    """The recipe of `prune` that prunes `counts` weights of each layer."""
    section = PruneSection(
        criterion=plan.criterion,
        repair=plan.repair,
        sparsity=sparsity,
        layers={key: shorten_sparsity(count, sizes[key]) for key, count in counts.items()},
    )
    return dump_settings(PruneRecipe(prune=section).model_dump(exclude_none=True))


def shorten_sparsity(count: int, size: int) -> float:
    """The sparsity of the fewest digits, four at least, that prunes `count` of `size` weights."""
    exact = count / size
    rounded = (round(exact, digits) for digits in range(4, 16))
    return next((one for one in rounded if one < 1 and round(one * size) == count), exact)


def draw_losses(
    folder: Path, trials: Sequence[LayerTrial], dense: float | None, conditions: str
) -> None:
    """Draw what is lost by layer and sparsity.

    Raises:
        OutputError: a file cannot be written.
    """

    def lost(trial: LayerTrial) -> float | None:
        accuracy = trial.accuracy
        return None if accuracy is None or dense is None else 100 * (dense - accuracy)

    def flipped(trial: LayerTrial) -> float | None:
        same = trial.compute_spike_agreement()
        return None if same is None else 100 * (1 - same)

    measures: dict[str, Callable[[LayerTrial], float | None]] = {
        "accuracy lost (points)": lost,
        "other class than dense (%)": lambda trial: 100 * (1 - trial.same_class),
        "other spikes behind the layer (%)": flipped,
    }
    plot_sensitivity(
        [folder / name for name in PICTURES],
        list(dict.fromkeys(trial.sparsity for trial in trials)),
        {title: _name_rows(group_by_layer(trials, value)) for title, value in measures.items()},
        conditions,
    )


def _name_rows(rows: Rows) -> Rows:
    return {layer_name(key): row for key, row in rows.items()}


@dataclass(frozen=True, kw_only=True)
class SensitivityResult:
    """What came of it."""

    plan: Plan
    trials: tuple[LayerTrial, ...]
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


def measure_sensitivity(options: SensitivityOptions, progress: Progress) -> SensitivityResult:
    """Prune each layer alone to each sparsity, and compare with the dense network.

    Each trial takes one repair on the calibration images and one pass over those to compare on,
    each layer one pass of the dense network besides. At the end all layers together are pruned, to
    the sparsities of the recipe.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then.
    """
    require_sense(options)
    work = _SensitivityJob(options, progress)
    with work.cost.stage("trials"):
        trials = tuple(work.bench.try_each_layer(options.sparsities, progress))
    counts = work.counts(trials)
    with work.cost.stage("together"):
        cut, together = work.bench.try_together(work.make_cutting(counts), options.sparsity)
    found = SensitivityResult(
        plan=work.bench.plan.names,
        trials=trials,
        sizes=work.sizes,
        counts=counts,
        together=together,
        split=work.split,
    )
    found = replace(found, report=work.report(found, cut.warnings))
    if options.out is not None:
        _write_results(options, found)
    return found


class _SensitivityJob:
    """A checkpoint, opened and scored, and what it is measured on."""

    def __init__(self, options: SensitivityOptions, progress: Progress) -> None:
        self.options, self.cost = options, StageTimer()
        self.target = open_target(fill_data_from_statistics(options, options.calibration))
        self.target.require_runnable()
        self.target.prunable.require_one_by_one()
        weights = self.target.find_weights()
        self.sizes = {key: weight.numel() for key, weight in weights.items()}
        self.zeros = {key: int((weight == 0).sum()) for key, weight in weights.items()}
        require_reach(options, self.sizes.values())
        plan = Plan(
            criterion=options.criterion or CRITERION,
            repair=choose_repair(self.target, options.repair),
        )
        with self.cost.stage("calibration"):
            self.calibration = _read_or_calibrate(options, self.target, progress)
        self.split, images = _choose_images(options, self.target, self.calibration)
        one = make_one_shot(self.target, self.calibration, progress)
        with self.cost.stage("scoring"):
            loaded = plan.load()
            self.scores = one.scores(loaded)
        self.bench = TrialBench(target=self.target, work=one, plan=loaded, images=images)

    def counts(self, trials: Sequence[LayerTrial]) -> dict[str, int]:
        """How many weights of each layer to prune, for the least summed divergence."""
        curves = {key: [(zeros / self.sizes[key], 0.0)] for key, zeros in self.zeros.items()}
        for trial in trials:
            curves[trial.weight].append((trial.pruned / trial.weights, trial.divergence))
        count = round(self.options.sparsity * sum(self.sizes.values()))
        return choose_cheapest(curves, self.sizes, count)

    def make_cutting(self, counts: Mapping[str, int]) -> LayerCutting:
        """Cuts all layers as the recipe will."""
        own = {key: shorten_sparsity(count, self.sizes[key]) for key, count in counts.items()}
        return LayerCutting(own, self.bench.plan, self.options.sparsity)

    def report(self, found: SensitivityResult, warnings: Sequence[str]) -> dict[str, Any]:
        """What came of it, as JSON."""
        return make_target_report(
            self.target,
            "sensitivity",
            warnings=(
                *self.calibration.warnings,
                *warn_of_unused_criterion(self.scores),
                *warnings,
            ),
            criterion=found.plan.criterion,
            repair=found.plan.repair,
            split=found.split,
            samples=found.together.samples,
            calibration_samples=self.calibration.samples,
            dense_accuracy=found.dense,
            sparsities=list(self.options.sparsities),
            trials=[asdict(make_trial_row(trial)) for trial in found.trials],
            recipe=asdict(
                RecipeRow(
                    sparsity=self.options.sparsity,
                    pruned=found.counts,
                    weights=found.sizes,
                    together=make_agreement_row(found.together),
                )
            ),
            cost=self.cost.report(self.target.device),
        )


def _read_or_calibrate(
    options: SensitivityOptions, target: Target, progress: Progress
) -> Calibration:
    if options.calibration is not None:
        return read_calibration_for(target, options.calibration)
    return calibrate_target(target, progress)


def _choose_images(
    options: SensitivityOptions, target: Target, calibration: Calibration
) -> tuple[str, Batches]:
    """Which images to compare on, and these.

    Raises:
        InputError: there are none of that split.
    """
    limit, split = options.eval_samples, options.split
    if split != "validation":
        return split, target.batches(split, limit)
    found = choose_validation(target, calibration, limit)
    return found.split, found.batches


def _write_results(options: SensitivityOptions, found: SensitivityResult) -> None:
    """Write report, recipe and pictures together, where a folder is given."""
    recipe = format_fragment(found.plan, options.sparsity, found.counts, found.sizes)
    with replace_together(*options.files) as staged:
        place = staged[0].parent
        write_text(place / FRAGMENT, recipe)
        draw_losses(place, found.trials, found.dense, _format_conditions(found))
        write_json(place / REPORT, found.report)
        write_pages(place, found.report)


def _format_conditions(found: SensitivityResult) -> str:
    """What the numbers of the pictures depend on."""
    model, data = found.report["model"], found.report["data"]
    names = [one["name"] for one in (model, data) if one]
    dense = [] if found.dense is None else [f"dense {found.dense:.1%}"]
    how = f"criterion {found.plan.criterion}, repair {found.plan.repair}"
    images = f"{found.together.samples:,} {found.split} images"
    return ", ".join([*names, how, images, *dense]) + "\none layer pruned alone, the others dense"
