"""Which criterion, allocation, repair and tuning a checkpoint is pruned by, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

from snnprune.errors import InputError, UsageError, format_names, format_percent, layer_name
from snnprune.graph.network import Network
from snnprune.jobs.check import find_chip_limit
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.targets.target import Target
from snnprune.masks import Masks
from snnprune.pruning.oneshot import BEGIN, Plan
from snnprune.pruning.repair import BY_LAYER, NONE, TUNE, TuneSettings, explain_unfitted
from snnprune.pruning.repair.batchnorm import find_batchnorms
from snnprune.pruning.repair.quantize import Per, Quantized
from snnprune.pruning.repair.tuning import StepCost, measure_step
from snnprune.pruning.structure import UNSTRUCTURED

BEST = Plan(criterion="sf-obs", allocation="lamp-magnitude", repair="obs")
"""The best closed form that was measured where network and data are at hand; see docs/results."""
BY_SIZE = Plan(criterion="magnitude", allocation="lamp")
"""The same counts without scores, for repairs that choose the weights of a layer themselves."""
CHOOSING = frozenset({"obs", TUNE})
MINUTE = 12 * 10**11
"""Multiply-adds that two cores do in about a minute of such steps."""
GPU = 50  # times as many
STEPS, LEAST = TuneSettings().steps, 120
"""Steps that are enough, and the fewest that were better than the closed form alone."""
A_TRIAL = "each sparsity that is tried would take a minute; --effort default tunes them all"
SAME = 0.9
"""Of the decisions on the calibration images: where fewer stay, half of the weights were too many
to go without tuning."""
SHALLOW = "no more than half of the weights go"


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
    """How it is pruned, and why so."""

    plan: Plan
    why: str
    """Why this criterion."""
    tuning_why: str | None = None
    """Why it is tuned so, or not, where that was left to the tool."""
    otherwise: MethodChoice | None = None
    """What takes its place where fewer than `SAME` of the decisions stay."""

    def judge(self, same: float) -> MethodChoice:
        """This one or the other, by the share of decisions that stay by this one."""
        told = f"{format_percent(same)} of the decisions on the calibration samples stay"
        if self.otherwise is not None and same < SAME:
            return replace(
                self.otherwise, tuning_why=f"{self.otherwise.tuning_why}; without, only {told}"
            )
        return replace(self, tuning_why=f"{self.tuning_why}, and {told}", otherwise=None)


def choose_methods(target: Target, options: PruneOptions) -> MethodChoice:
    """What was asked for, and for the rest the best known for what is at hand.

    Where all is left to the tool and no more than half of the weights go one by one, that is
    magnitude with BatchNorms matched, which was measured to lose least there; see docs/results.

    Raises:
        InputError: the repair that was asked for cannot be had.
    """
    asked = (options.criterion, options.repair, options.steps)
    tuned = options.list_given() or (options.effort is not None and not options.closed_form)
    shallow = _is_shallow(options) and target.runnable is not None
    deep = _choose_methods(target, options)
    if not shallow or tuned or any(one is not None for one in asked):
        return deep
    plan = replace(deep.plan, repair=choose_repair(target, None))
    return MethodChoice(
        plan=plan,
        why=deep.why,
        tuning_why=f"not tuned: {SHALLOW}" if deep.plan.tunes else deep.tuning_why,
        otherwise=deep if deep.plan.tunes else None,
    )


def _choose_methods(target: Target, options: PruneOptions) -> MethodChoice:
    """The same for any sparsity.

    Beside a criterion that was asked for, the allocation is the one that fits its scores and the
    repair is `bn` where it can be; what goes with `sf-obs` was measured with `sf-obs` alone.

    Raises:
        InputError: the repair that was asked for cannot be had.
    """
    shaped = options.structure not in (None, UNSTRUCTURED)
    plan, why = _choose_defaults(target, options)
    tuning, tuning_why = make_settings(target, options), None
    repair = choose_repair(target, options.repair, otherwise=plan.repair)
    asked = (options.criterion, options.repair, options.steps)
    left_to_us = all(one is None for one in asked)
    if left_to_us and target.runnable is not None:
        choice = choose_tuning(target, options)
        tuning_why = choice.why
        if choice.settings is not None:
            tuning, repair = choice.settings, f"obs+{TUNE}" if shaped else TUNE
    elif TUNE in repair.split("+"):
        tuning = choose_surrogate(target, tuning)
    if plan is BEST and not shaped and repair.split("+")[0] in CHOOSING:
        plan = BY_SIZE
    # channels and patterns have their own way
    allocation = options.allocation or (None if shaped else plan.allocation)
    plan = replace(
        plan,
        allocation=allocation,
        repair=repair,
        steps=options.steps or 1,
        tuning=tuning,
        bits=options.bits,
        per=_choose_scale(options),
    )
    if not plan.tunes:
        _refuse_tuning(target, options, plan)
    return MethodChoice(plan=plan, why=why, tuning_why=tuning_why)


def _choose_scale(options: PruneOptions) -> Per:
    """What has one scale on a grid: what the chip says, or each output channel."""
    limit = find_chip_limit(options.limits)
    return "channel" if limit is None else limit.value.weight_scale


def _choose_defaults(target: Target, options: PruneOptions) -> tuple[Plan, str]:
    """Criterion, allocation and repair, and why."""
    if options.criterion is not None:
        fitting = choose_repair(target, None)
        return Plan(criterion=options.criterion, repair=fitting), "asked for"
    if target.runnable is not None:
        return BEST, "the network and its data are at hand"
    if target.network is not None and options.calibration is not None:
        return Plan(criterion="sf"), "the network and its calibration are at hand"
    why = target.missing or "the network is not at hand"
    return Plan(criterion="magnitude", allocation="lamp"), why


def choose_repair(target: Target, asked: str | None, *, otherwise: str | None = None) -> str:
    """The repair asked for, else `otherwise`, else `bn` where the network has BatchNorm and data.

    Raises:
        InputError: the repair that was asked for needs what is missing.
    """
    normalised = target.runnable is not None and bool(find_batchnorms(target.runnable.module))
    if asked is None:
        return otherwise or ("bn" if normalised else NONE)
    if asked != NONE and target.runnable is None:
        raise InputError(
            f"{asked} needs the network and data: {target.missing or 'they are not at hand'}",
            file=target.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    if "bn" in asked.split("+") and not normalised:
        raise InputError(
            "there is no BatchNorm to repair: the network has none",
            file=target.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    return asked


def _refuse_tuning(target: Target, options: PruneOptions, plan: Plan) -> None:
    """Refuse flags of tuning where nothing is tuned.

    Raises:
        InputError: the network or its data is missing.
        UsageError: another repair was asked for.
    """
    asked = [*options.list_given(), *["--effort"] * options.thorough]
    if not asked:
        return
    if target.runnable is None:
        raise InputError(
            f"needs the network and data: {target.missing or 'they are not at hand'}",
            file=target.checkpoint.path,
            field=asked[0],
        )
    raise UsageError(
        f"says how to tune, and repair {plan.repair} does not",
        field=asked[0],
        hint="leave it out, or give --repair tune",
    )


def list_unfitted(network: Network | None, repair: str, masks: Masks) -> list[str]:
    """A warning where a repair leaves layers as they are, with the reasons."""
    by_layer = [name for name in repair.split("+") if name in BY_LAYER]
    found = explain_unfitted(network, masks) if network is not None and by_layer else {}
    if not found:
        return []
    reasons: dict[str, list[str]] = {}
    for key, why in found.items():
        reasons.setdefault(why, []).append(layer_name(key))
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return [f"{'+'.join(by_layer)} leaves the kept weights of some layers as they are: {told}"]


def list_rounded(quantized: Quantized | None) -> list[str]:
    """A warning where weights were put on their grid each by itself, with the reasons."""
    if quantized is None:
        return []
    reasons: dict[str, list[str]] = {}
    for key, layer in quantized.layers.items():
        if layer.reason is not None:
            reasons.setdefault(layer.reason, []).append(layer_name(key))
    told = "; ".join(f"{format_names(names)}: {why}" for why, names in reasons.items())
    by_itself = f"rounded to {quantized.bits} bits each by itself, with nothing to make up for it"
    return [f"some weights are {by_itself}: {told}"] if told else []


@dataclass(frozen=True, kw_only=True)
class TuneChoice:
    """How it is tuned, and why so."""

    settings: TuneSettings | None
    """None: it is not."""
    why: str


def choose_tuning(target: Target, options: PruneOptions) -> TuneChoice:
    """As asked for, and as many steps as are done in about a minute where nobody says how many.

    The number follows from the multiply-adds of a step and not from a clock, so that it is the
    same on every machine.

    Raises:
        InputError: there are no samples, or it was asked how to tune what cannot be tuned.
    """
    if options.closed_form:
        return TuneChoice(settings=None, why="not tuned: the closed form was asked for")
    if options.accuracy_target is not None and options.effort is None and not options.budget:
        return TuneChoice(settings=None, why=f"not tuned: {A_TRIAL}")
    asked = options.list_given() or ["--effort"] * (options.effort is not None)
    try:
        cost = _measure_step(target)
    except InputError as error:
        if asked:
            error.field, error.hint = asked[0], "leave it out, or choose --no-tune"
            raise
        return TuneChoice(settings=None, why=f"not tuned: {error.message}")
    settings = replace(make_settings(target, options), surrogate=cost.surrogate)
    by = ", with a surrogate gradient of snnprune's own" if cost.surrogate else ""
    if options.tune_steps is not None:
        return TuneChoice(settings=settings, why=f"{settings.steps} steps were asked for{by}")
    budget = MINUTE * (1 if target.device.type == "cpu" else GPU)
    steps = min(STEPS, budget // max(1, cost.multiply_adds))
    size = f"{cost.multiply_adds / 1e9:.3g} G multiply-adds"
    if steps < LEAST and not asked:
        return TuneChoice(
            settings=None,
            why=f"not tuned: {LEAST} steps of {size} each take more than about a minute",
        )
    steps = max(steps, LEAST)
    return TuneChoice(
        settings=replace(settings, steps=steps),
        why=f"{steps} steps of {size} each take about a minute{by}",
    )


def _is_shallow(options: PruneOptions) -> bool:
    """Whether weights go one by one and of nothing more than half."""
    one_by_one = options.structure in (None, UNSTRUCTURED)
    goals = (*options.sparsities, *options.layers.values())
    return one_by_one and 0 < max(goals, default=0.0) <= BEGIN


def _measure_step(target: Target) -> StepCost:
    """What a step of tuning takes.

    Raises:
        InputError: there are no samples, or no gradient reaches one of the weights.
    """
    cost = measure_step(target.require_runnable(), target.calibration_batches())
    unreached = [key for key in target.find_weights() if key in cost.unreached]
    if unreached:
        names = format_names([layer_name(key) for key in unreached])
        raise InputError(f"no gradient reaches {names}")
    return cost


def choose_surrogate(target: Target, settings: TuneSettings) -> TuneSettings:
    """The settings for a repair that was asked for: as they are, or with a surrogate gradient."""
    try:
        cost = measure_step(target.require_runnable(), target.calibration_batches())
    except InputError:  # `tune` tells what is wrong
        return settings
    return replace(settings, surrogate=cost.surrogate)


def make_settings(target: Target, options: PruneOptions) -> TuneSettings:
    """What was asked for, and for the rest what fits the data."""
    default, augment = TuneSettings(), options.parse_augment()
    valid = target.data.augmentable if target.data is not None else ()
    return TuneSettings(
        steps=options.tune_steps or default.steps,
        learning_rate=options.tune_lr or default.learning_rate,
        images=options.tune_images or default.images,
        use_labels=options.use_labels,
        augment=valid if augment is None else augment,
    )
