"""A checkpoint, opened, and what pruning makes of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint.containers import SAFETENSORS, require_plain, write_like
from snnprune.checkpoint.mask_file import BITS
from snnprune.checkpoint.packed import pack
from snnprune.errors import InputError, UsageError, did_you_mean
from snnprune.jobs.calibrate import calibrate_target, fill_data_from_statistics, read_or_calibrate
from snnprune.jobs.check import BY_COUNTING, BY_RUNNING, has_limit_on
from snnprune.jobs.prune.chips import plan_chip
from snnprune.jobs.prune.measuring import NetworkMeter, NetworkResult, WantedMeasures
from snnprune.jobs.prune.methods import MethodChoice, choose_methods
from snnprune.jobs.prune.options import OutputPaths, PruneOptions
from snnprune.jobs.prune.pruned_model import (
    PrunedModel,
    build_and_load_tensors,
    build_compact_model,
    list_integers_by_name,
    require_exact,
    warn_of_masks,
)
from snnprune.jobs.prune.target_sparsity import (
    Search,
    ValidationImages,
    choose_validation,
    measure_accuracy,
    search_target,
)
from snnprune.jobs.targets.binding import load_tensors
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import StageTimer
from snnprune.jobs.targets.target import Target, make_one_shot
from snnprune.masks import Masks, RowBounds, count_prunable, count_pruned
from snnprune.measure.calibration import Calibration
from snnprune.pruning.allocation import load_allocation
from snnprune.pruning.budget import BudgetCutting
from snnprune.pruning.oneshot import Cutting, LoadedPlan, OneShot, Plan
from snnprune.pruning.prune import PruneResult, choose_default_allocation, prune
from snnprune.pruning.repair import NONE
from snnprune.pruning.score import Scores
from snnprune.pruning.structure import (
    UNSTRUCTURED,
    PatternCutting,
    Structure,
    format_metadata,
    parse_structure,
)
from snnprune.pruning.structure.channels import ChannelCutting
from snnprune.runtime import Progress

FEW = 50
"""On fewer images an accuracy says little."""
BY_BUDGET = "by budget"  # likewise, where prices share out
BY_LAYER = "by layer"  # in place of an allocation, where a recipe names every layer
TIMES = (3, 9, 27)
"""How many times as many steps each further try takes."""
PAYS = 0.97
"""Of the loss before: a try that is not below it does not pay."""


class PruneJob:
    """A checkpoint, opened, and all that its files share."""

    calibration: Calibration | None
    """Set by `calibrate`, as is what is pruned."""
    one_shot: OneShot
    scores: Scores
    """Set by `score`, as is the allocation that fits them."""
    allocation: str

    def __init__(self, options: PruneOptions, progress: Progress) -> None:
        """Open the checkpoint; what cannot be done with it as asked is refused.

        Raises:
            UsageError: a gate is about what is not measured.
            InputError: checkpoint, network or data cannot be used, or are missing.
        """
        self.progress, self.cost = progress, StageTimer()
        self.target = open_target(fill_data_from_statistics(options, options.calibration))
        self.chip = plan_chip(self.target, options)
        if self.chip is not None and options.fits_chip:
            options = replace(options, structure=self.chip.structure)
        self.options = options
        self.structure = parse_structure(options.structure or UNSTRUCTURED)
        for place in options.places:
            if place.out.suffix.lower() in SAFETENSORS:
                require_plain(self.target.checkpoint)
        self.target.prunable.require_one_by_one()
        self.measuring = NetworkMeter(
            self.target, _choose_measures(options), options.eval_samples, progress, self.cost
        )
        _require_judgeable(options, self.measuring)
        self.choice = choose_methods(self.target, options)
        require_layers(options.layers, self.target.find_weights(), options.recipe)
        self.plan = self.choice.plan.load()
        self.made: dict[float, PrunedModel] = {}
        """Networks that a search has made already, by sparsity."""
        self.notes: list[str] = []
        self.packs = False
        """Whether the file is written packed, so that it may be small."""

    def calibrate(self) -> None:
        """Take or read the statistics that scores and repairs go by."""
        with self.cost.stage("calibration"):
            self.calibration = self._read_or_calibrate()
        deepest = (self.choice.otherwise or self.choice).plan
        self.one_shot = make_one_shot(
            self.target,
            self.calibration,
            self.progress,
            tuning_images=deepest.tuning.images if deepest.tunes else None,
        )

    def score(self) -> None:
        """Score every weight of the dense network, and choose how a sparsity is shared out."""
        with self.cost.stage("scoring"):
            self.scores = self.one_shot.scores(self.plan)
        shared_out = self.choice.plan.allocation or choose_default_allocation(self.scores)
        named_all = self.options.layers.keys() >= self.target.find_weights().keys()
        self.allocation = BY_LAYER if named_all else shared_out
        if (self.options.budget and self.options.allocation is None) or self.options.kept_by_layer:
            self.allocation = BY_BUDGET

    @property
    def goals(self) -> list[tuple[float, OutputPaths]]:
        """Each sparsity and where its file goes; 0 where only named layers are pruned."""
        sparsities = self.options.sparsities or (0.0,)
        return list(zip(sparsities, self.options.places, strict=True))

    def measure_before(self) -> NetworkResult | None:
        """Accuracy, firing and work of the dense network, which the module then holds."""
        self.one_shot.restore()
        return self.measuring.measure("evaluating before")

    def search_goal(
        self, make: Callable[[float], PrunedModel] | None = None, most: float = 1.0
    ) -> tuple[Search, list[tuple[float, OutputPaths]]]:
        """The search for the target, and the goal that it found.

        `make` makes the network of a sparsity, where that is not cut as any other; `most` is the
        highest there is.
        """
        wanted, limit = self.options.accuracy_target, self.options.eval_samples
        assert wanted is not None
        noun = self.target.noun
        validation = choose_validation(self.target, self.calibration, limit)
        self.one_shot.restore()
        search, sparsity, made = search_target(
            wanted,
            make=make or self._prune_and_repair,
            most=most,
            accuracy=lambda: self.measure_accuracy(validation),
            split=validation.split,
            noun=noun,
        )
        self.made[sparsity] = made
        self.notes = [*validation.list_warnings(noun), *warn_of_few_images(search.images, noun)]
        return search, [(sparsity, self.options.places[0])]

    def prune_to(self, sparsity: float) -> PrunedModel:
        """The network pruned to a sparsity and repaired, which the module then holds."""
        made = (
            self.made.pop(sparsity) if sparsity in self.made else self._prune_and_repair(sparsity)
        )
        made = self._add_compact_model(made)
        if self.target.network is not None:
            load_tensors(self.target.network.module, made.tensors)
        return made

    def keep_goal(self, made: PrunedModel) -> list[tuple[float, OutputPaths]]:
        """A network that was made already as the one goal, by its sparsity."""
        sparsity = count_pruned(made.cut.masks) / count_prunable(made.cut.masks)
        self.made[sparsity] = made
        return [(sparsity, self.options.places[0])]

    def make_metadata(self, made: PrunedModel, sparsity: float) -> dict[str, str]:
        """What the file of a network says of itself."""
        source, plan = self.target.checkpoint, made.choice.plan
        metadata = source.metadata | make_metadata(
            "prune",
            model=self.target.spec,
            data=self.target.data_spec,
            criterion=plan.criterion,
            allocation=self.allocation,
            repair=plan.repair,
            steps=plan.steps,
            sparsity=sparsity,
            source_sha256=source.sha256,
        )
        metadata |= format_metadata(made.small.shapes) if made.small else {}
        return metadata | ({} if plan.bits is None else {BITS: str(plan.bits)})

    def write_model(
        self, made: PrunedModel, out: Path, metadata: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Write a network like the checkpoint, or packed; notes on what could not be kept.

        Raises:
            InputError: as `write_like`.
            OutputError: it cannot be written.
        """
        source, tensors = self.target.checkpoint, (made.small or made).tensors
        if not self.packs:
            return write_like(source, out, tensors, metadata)
        pack(source.in_file(tensors)).write(out, metadata)
        return (
            "the file is packed, since zeros take room in others: snnprune reads it, and "
            "export --to dense makes a drop-in of it",
        )

    def measure_size(self, made: PrunedModel) -> int:
        """Bytes of the file of a network, which is written for it and removed again."""
        made = self._add_compact_model(made)
        pruned = count_pruned(made.cut.masks) / count_prunable(made.cut.masks)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / self.options.out.name
            self.write_model(made, out, self.make_metadata(made, pruned))
            return out.stat().st_size

    def _read_or_calibrate(self) -> Calibration | None:
        """Statistics, where something needs them or they are to be shown."""
        file, target, options = self.options.calibration, self.target, self.options
        shown = options.evaluate or options.report is not None or options.strict
        if file is None and target.runnable is not None and (shown or self._needs_statistics()):
            return calibrate_target(target, self.progress)
        return read_or_calibrate(target, self.plan.criterion, file, self.progress)

    def _needs_statistics(self) -> bool:
        return self.plan.needs_statistics or self.options.accuracy_target is not None

    def prune_within(self, cutting: BudgetCutting, rows: Mapping[str, RowBounds]) -> PrunedModel:
        """The network cut to a budget and repaired within it, which the module then holds."""
        return self._make_thoroughly(lambda choice: self._prune_within(choice, cutting, rows))

    def prune_to_channels(self, channels: Mapping[str, int]) -> PrunedModel:
        """The network with so many channels of each group, repaired, which the module holds."""
        network = self.target.network
        assert network is not None

        def make(choice: MethodChoice) -> PrunedModel:
            cutting = ChannelCutting(network, counts=channels)
            return self._prune_by_cutting(choice, 0.0, cutting, shaped=cutting)

        return self._make_thoroughly(make)

    def leave_dense(self) -> PrunedModel:
        """The network as it is, with what it has of zeros as its masks."""
        plan = replace(self.choice.plan, repair=NONE)
        return self._prune_by(replace(self.choice, plan=plan, tuning_why=None), 0.0)

    def find_path(self) -> Cutting | None:
        """What ranks weights where a budget has no say in it: channels or an allocation."""
        shaped = make_cutting(self.structure, self.target, self.plan.names)
        if shaped is not None or self.options.allocation is None:
            return shaped
        allocation = load_allocation(self.options.allocation)
        return lambda weights, scores, share, alive: prune(
            weights, scores, sparsity=share, allocation=allocation, alive=alive
        )

    def _prune_and_repair(self, sparsity: float) -> PrunedModel:
        """Prune the dense network and repair it, as thoroughly as was asked for."""
        return self._make_thoroughly(lambda choice: self._prune_by(choice, sparsity))

    def _make_thoroughly(self, make: Callable[[MethodChoice], PrunedModel]) -> PrunedModel:
        made = prune_as_needed(self.choice, make, self._measure_same)
        return tune_longer(made, make) if self.options.thorough else made

    def _measure_same(self) -> float:
        with self.cost.stage("pruning and repair"):
            return self.one_shot.measure_same_decisions()

    def _prune_by(self, choice: MethodChoice, sparsity: float) -> PrunedModel:
        layers = self.options.layers
        plan = self.plan.change(choice.plan)
        shaped = make_cutting(self.structure, self.target, plan.names)
        cutting = LayerCutting(layers, plan, sparsity) if layers else shaped
        return self._prune_by_cutting(choice, sparsity, cutting, shaped=shaped)

    def _prune_within(
        self, choice: MethodChoice, cutting: BudgetCutting, rows: Mapping[str, RowBounds]
    ) -> PrunedModel:
        shaped = cutting.path if isinstance(cutting.path, ChannelCutting) else None
        return self._prune_by_cutting(choice, 0.0, cutting, shaped=shaped, rows=rows)

    def _prune_by_cutting(
        self,
        choice: MethodChoice,
        sparsity: float,
        cutting: Cutting | None,
        *,
        shaped: Cutting | None,
        rows: Mapping[str, RowBounds] | None = None,
    ) -> PrunedModel:
        target, plan = self.target, self.plan.change(choice.plan)
        with self.cost.stage("pruning and repair"):
            cut = self.one_shot.prune(
                plan, sparsity, cutting, structured=shaped is not None, rows=rows
            )
            tuned, quantized = self.one_shot.tuned, self.one_shot.quantized
            integers = {} if quantized is None else list_integers_by_name(target, quantized)
            weights = {key: held.multiply() for key, held in integers.items()}
            tensors = build_and_load_tensors(target, cut.masks, self.one_shot.tensors() | weights)
            require_exact(integers, tensors, file=target.checkpoint.path)
        removed = shaped.removed if isinstance(shaped, ChannelCutting) else None
        return PrunedModel(
            cut=cut,
            tensors=tensors,
            choice=choice,
            tuned=tuned,
            quantized=quantized,
            removed=removed,
        )

    def _add_compact_model(self, made: PrunedModel) -> PrunedModel:
        """The same with its smaller network, or why there is none."""
        if made.removed is None:
            return made
        try:
            if self.options.out.suffix.lower() not in SAFETENSORS:
                raise InputError("only a .safetensors file can say which channels are gone")
            with self.cost.stage("pruning and repair"):
                small = build_compact_model(self.target, made.tensors, made.cut.masks, made.removed)
        except InputError as error:
            return replace(made, notes=(warn_of_masks(error),))
        return replace(made, small=small)

    def measure_accuracy(self, validation: ValidationImages) -> tuple[float, int]:
        """Of what the network holds, in [0, 1], and the number of images."""
        with self.cost.stage("search"):
            return measure_accuracy(self.target, validation, self.progress)


def prune_as_needed(
    choice: MethodChoice,
    make: Callable[[MethodChoice], PrunedModel],
    measure_same: Callable[[], float],
) -> PrunedModel:
    """By the choice, or by what takes its place where too many decisions change.

    `measure_same` gives the share of decisions that stay in what was made last.
    """
    made = make(choice)
    if choice.otherwise is None:
        return made
    judged = choice.judge(measure_same())
    return make(judged) if judged.plan != choice.plan else replace(made, choice=judged)


def tune_longer(made: PrunedModel, make: Callable[[MethodChoice], PrunedModel]) -> PrunedModel:
    """The best of `made` and of tries with three times as many steps each, as long as it pays."""
    choice = made.choice
    tuning = choice.plan.tuning
    for times in TIMES:
        if made.tuned is None:
            return made
        settings = replace(tuning, steps=times * tuning.steps)
        longer = make(replace(choice, plan=replace(choice.plan, tuning=settings)))
        if longer.tuned is None or longer.tuned.loss_at_last >= made.tuned.loss_at_last:
            return made
        pays = longer.tuned.loss_at_last < PAYS * made.tuned.loss_at_last
        made = longer
        if not pays:
            return made
    return made


def warn_of_few_images(images: int, noun: str) -> list[str]:
    """A warning where an accuracy moves in large steps."""
    if images >= FEW:
        return []
    return [f"the sparsity was looked for on {images} {noun}, each {100 / images:.1f} points"]


def _choose_measures(options: PruneOptions) -> WantedMeasures:
    """What gates and report ask for."""
    reported = options.report is not None
    return WantedMeasures(
        evaluation=options.evaluate,
        workload=reported or has_limit_on(options.limits, BY_COUNTING),
        agreement=options.evaluate and (reported or has_limit_on(options.limits, ("same",))),
        evidence=reported,
    )


def _require_judgeable(options: PruneOptions, measuring: NetworkMeter) -> None:
    """Refuse, before any work is done, gates that nothing could be held against.

    Raises:
        UsageError: a gate is about what `--no-eval` leaves out.
        InputError: there are no network or no images.
    """
    for limit in options.limits:
        if not has_limit_on([limit], BY_RUNNING):
            continue
        if not options.evaluate:
            raise UsageError("needs what --no-eval leaves out", field=limit.gate.flag)
        if measuring.missing:
            raise InputError(
                f"cannot be judged: {measuring.missing}",
                file=options.checkpoint,
                field=limit.gate.flag,
                hint="give --model and --data",
            )


def make_cutting(structure: Structure, target: Target, plan: Plan) -> Cutting | None:
    """What cuts to a structure; None for weights one by one.

    Raises:
        InputError: channels are asked for, and there is no network or none that can go.
    """
    if structure.is_pattern:
        return PatternCutting(structure, target.network.layers if target.network else None)
    if structure.name == UNSTRUCTURED:
        return None
    if target.network is None:
        raise InputError(
            f"channels need the network: {target.missing}",
            file=target.checkpoint.path,
            field="--structure",
            hint="give --model, or choose N:M",
        )
    return ChannelCutting(target.network, locally=plan.allocation == "local")


class LayerCutting:
    """Cuts named layers to their own sparsity and shares another one out among the others."""

    def __init__(self, layers: Mapping[str, float], plan: LoadedPlan, final: float) -> None:
        """`final` is the sparsity of the layers that are not named, after the last step."""
        self.layers, self.plan, self.final = layers, plan, final

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        scores: Scores,
        sparsity: float,
        alive: Masks | None,
    ) -> PruneResult:
        """Masks with exact counts in each named layer, and in the others together."""
        way = self._compute_progress(sparsity)
        cuts = [
            cut_alone(key, weights, scores, _interpolate_sparsity(own, way), alive)
            for key, own in self.layers.items()
        ]
        others = {key: weight for key, weight in weights.items() if key not in self.layers}
        if others:
            allocation = self.plan.allocation
            cuts.append(
                prune(others, scores, sparsity=sparsity, allocation=allocation, alive=alive)
            )
        return _merge_cuts(cuts, list(weights))

    def _compute_progress(self, sparsity: float) -> float:
        """How far a step is on the way to the end, in (0, 1], in logarithms of what is kept."""
        if sparsity >= self.final:
            return 1.0
        return math.log1p(-sparsity) / math.log1p(-self.final)


def cut_alone(
    key: str,
    weights: Mapping[str, Tensor],
    scores: Scores,
    sparsity: float,
    alive: Masks | None,
) -> PruneResult:
    """The mask of one layer alone, of exactly that sparsity."""
    return prune(
        {key: weights[key]},
        scores,
        sparsity=sparsity,
        allocation=load_allocation("local"),
        alive=alive,
    )


def _interpolate_sparsity(sparsity: float, way: float) -> float:
    """What is pruned when a layer is `way` of the way to `sparsity`; there it is that exactly."""
    return sparsity if way == 1 else 1 - (1 - sparsity) ** way


def _merge_cuts(cuts: list[PruneResult], order: list[str]) -> PruneResult:
    masks = {key: mask for cut in cuts for key, mask in cut.masks.items()}
    return PruneResult(
        masks={key: masks[key] for key in order},
        already_zero=sum(cut.already_zero for cut in cuts),
        warnings=tuple(warning for cut in cuts for warning in cut.warnings),
    )


def require_layers(
    layers: Mapping[str, float], weights: Mapping[str, Tensor], recipe: Path | None
) -> None:
    """Refuse layers that are not there or may not be pruned.

    Raises:
        InputError: one is; it is named.
    """
    for key in layers:
        if key not in weights:
            raise InputError(
                "is no weight that may be pruned",
                file=recipe,
                field=f"prune.layers.{key}",
                hint=did_you_mean(key, weights),
            )
