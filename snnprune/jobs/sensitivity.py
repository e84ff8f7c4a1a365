"""`snnprune sensitivity`: what each layer alone costs, and sparsities that cost little together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.errors import UsageError, layer_name
from snnprune.files.writing import replace_together, write_json, write_text
from snnprune.jobs.calibrate import (
    calibrate_target,
    fill_data_from_statistics,
    read_calibration_for,
)
from snnprune.jobs.options import SensitivityOptions
from snnprune.jobs.prune.methods import choose_repair
from snnprune.jobs.prune.target_sparsity import choose_validation
from snnprune.jobs.prune.work import LayerCutting, cut_alone
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.reporting import StageTimer, make_target_report
from snnprune.jobs.targets.target import Target, make_one_shot, warn_of_unused_criterion
from snnprune.measure import Natural, Share
from snnprune.measure.agreement import Agreement, AgreementRow, Answers, Outputs, make_agreement_row
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.measure.calibration import Calibration
from snnprune.pruning.allocation.rules import choose_cheapest
from snnprune.pruning.oneshot import LoadedPlan, OneShot, Plan
from snnprune.pruning.prune import PruneResult
from snnprune.recipe.schema import PruneRecipe, PruneSection
from snnprune.recipe.yaml_text import dump_settings
from snnprune.report import name_samples_of
from snnprune.report.pages import write_pages
from snnprune.report.plots.layers import plot_sensitivity
from snnprune.runtime import Progress

CRITERION = "sf-obs"  # as prune takes it where network and data are at hand


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


def _require_reach(options: SensitivityOptions, sizes: Collection[int]) -> None:
    """Refuse, before the layers are tried, a total that no layer is measured far enough for.

    Raises:
        UsageError: it is beyond the highest of the sparsities.
    """
    highest = max(options.sparsities)
    if round(options.sparsity * sum(sizes)) > sum(round(highest * size) for size in sizes):
        raise UsageError(
            f"{options.sparsity:g} of all weights is more than the {highest:g} that is measured",
            field="--sparsity",
            hint="give higher --sparsities",
        )


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
        _require_reach(options, self.sizes.values())
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
            cost=self.cost.report(self.target.device, self.bench.work.estimates),
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
        write_text(place / options.FRAGMENT, recipe)
        draw_losses(place, found.trials, found.dense, _format_conditions(found))
        write_json(place / options.REPORT, found.report)
        write_pages(place, found.report)


def _format_conditions(found: SensitivityResult) -> str:
    """What the numbers of the pictures depend on."""
    model, data = found.report["model"], found.report["data"]
    names = [one["name"] for one in (model, data) if one]
    dense = [] if found.dense is None else [f"dense {found.dense:.1%}"]
    how = f"criterion {found.plan.criterion}, repair {found.plan.repair}"
    images = f"{found.together.samples:,} {found.split} {name_samples_of(found.report)}"
    return ", ".join([*names, how, images, *dense]) + "\none layer pruned alone, the others dense"


@dataclass(frozen=True, kw_only=True)
class LayerTrial:
    """One layer at one sparsity, held against the dense network."""

    weight: str
    sparsity: float
    """As asked."""
    pruned: int
    weights: int
    agreement: Agreement
    behind: tuple[str, ...] = ()
    """The neurons that the layer drives."""

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None without labels."""
        answers = self.agreement.answers
        return answers.accuracies[1] if answers else None

    def compute_spike_agreement(self) -> float | None:
        """Share of the spikes behind the layer that stay; None where it drives none."""
        return self.agreement.share(self.behind) if self.behind else None

    @property
    def same_class(self) -> float:
        """Share of samples whose class stays."""
        return self.agreement.outputs.share if self.agreement.outputs else 0.0

    @property
    def divergence(self) -> float:
        """Mean KL divergence of the output from the dense network's, in nats."""
        return self.agreement.outputs.mean_divergence if self.agreement.outputs else 0.0


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A `LayerTrial` for a report, with what follows from it."""

    weight: str
    sparsity: Share
    pruned: Natural
    weights: Natural
    accuracy: Share | None
    same_class: Share
    divergence: float
    spike_agreement: Share | None
    behind: Sequence[str]
    spikes_same: Natural
    spikes_places: Natural
    outputs: Outputs | None
    answers: Answers | None


def make_trial_row(trial: LayerTrial) -> TrialRow:
    """Of one trial."""
    behind = [trial.agreement.spikes[name] for name in trial.behind]
    return TrialRow(
        weight=trial.weight,
        sparsity=trial.sparsity,
        pruned=trial.pruned,
        weights=trial.weights,
        accuracy=trial.accuracy,
        same_class=trial.same_class,
        divergence=trial.divergence,
        spike_agreement=trial.compute_spike_agreement(),
        behind=list(trial.behind),
        spikes_same=sum(sum(spikes.same) for spikes in behind),
        spikes_places=sum(sum(spikes.places) for spikes in behind),
        outputs=trial.agreement.outputs,
        answers=trial.agreement.answers,
    )


@dataclass(frozen=True, kw_only=True)
class TrialBench:
    """What every trial is made with."""

    target: Target
    work: OneShot
    plan: LoadedPlan
    images: Batches
    """To compare on."""

    def try_each_layer(
        self, sparsities: Sequence[float], progress: Progress
    ) -> Iterator[LayerTrial]:
        """All trials, layer by layer; the network is dense again after each."""
        keys = list(self.work.weights)
        with progress.within("one layer alone", total=len(keys) * len(sparsities)):
            for key in keys:
                yield from self._layer(key, sparsities, progress)

    def try_together(
        self, cutting: Callable[..., PruneResult], sparsity: float
    ) -> tuple[PruneResult, Agreement]:
        """The whole network, cut in one piece."""
        try:
            cut = self.work.prune(self.plan, sparsity, cutting)
            tensors = self.work.tensors()
        finally:
            self.work.restore()
        return cut, self._compare([tensors])[0]

    def _layer(
        self, key: str, sparsities: Sequence[float], progress: Progress
    ) -> Iterator[LayerTrial]:
        counts, pruned = [], []
        for sparsity in progress.track(sparsities, label=key, total=len(sparsities)):
            try:
                cut = self.work.prune(self.plan, sparsity, functools.partial(cut_alone, key))
                counts.append(int((~cut.masks[key]).sum()))
                pruned.append(self.work.tensors())
            finally:
                self.work.restore()
        links = self.target.require_runnable().layers[key].links
        for sparsity, count, found in zip(sparsities, counts, self._compare(pruned), strict=True):
            yield LayerTrial(
                weight=key,
                sparsity=sparsity,
                pruned=count,
                weights=self.work.weights[key].numel(),
                agreement=found,
                behind=tuple(dict.fromkeys(link.neuron for link in links)),
            )

    def _compare(self, pruned: Sequence[Mapping[str, Tensor]]) -> list[Agreement]:
        """Each of `pruned` with the dense network, which the module holds."""
        return measure_agreements(
            self.target.require_runnable(),
            {},
            pruned,
            self.images,
        )


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
        [folder / name for name in SensitivityOptions.PICTURES],
        list(dict.fromkeys(trial.sparsity for trial in trials)),
        {title: _name_rows(group_by_layer(trials, value)) for title, value in measures.items()},
        conditions,
    )


def _name_rows(rows: Rows) -> Rows:
    return {layer_name(key): row for key, row in rows.items()}
