"""Whether and how a network is tuned where nobody says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from snnprune.errors import InputError
from snnprune.errors.text import format_names, layer_name
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.targets.target import Target
from snnprune.pruning.oneshot import BEGIN, PrunePlan
from snnprune.pruning.repair.settings import TuneSettings
from snnprune.pruning.repair.tuning_cost import StepCost, measure_step
from snnprune.pruning.structure.structure import UNSTRUCTURED

MINUTE = 12 * 10**11
"""Multiply-adds that two cores do in about a minute of such steps."""
GPU = 50  # times as many
STEPS, LEAST = TuneSettings().steps, 120
"""Steps that are enough, and the fewest that were better than the closed form alone."""
TIMES = (3, 9, 27)
"""How many times as many steps each further try takes."""
A_TRIAL = "each sparsity that is tried would take a minute; --effort default tunes them all"
PAYS = 0.97
"""Of the loss before: a try that is not below it does not pay."""


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
    if options.accuracy_target is not None and options.effort is None:
        return TuneChoice(settings=None, why=f"not tuned: {A_TRIAL}")
    asked = options.list_given() or ["--effort"] * (options.effort is not None)
    if not asked and _is_shallow(options):
        return TuneChoice(settings=None, why="not tuned: no more than half of the weights go")
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
    """Whether weights go one by one and at most half of them: the closed form loses nothing."""
    one_by_one = options.structure in (None, UNSTRUCTURED)
    return one_by_one and 0 < max(options.sparsities, default=0.0) <= BEGIN


def choose_surrogate(target: Target, settings: TuneSettings) -> TuneSettings:
    """The settings for a repair that was asked for: as they are, or with a surrogate gradient."""
    try:
        cost = measure_step(target.require_runnable(), target.calibration_batches())
    except InputError:  # `tune` tells what is wrong
        return settings
    return replace(settings, surrogate=cost.surrogate)


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


def tune_longer(
    made: PrunedModel, plan: PrunePlan, make: Callable[[PrunePlan], PrunedModel]
) -> PrunedModel:
    """The best of `made` and of tries with three times as many steps each, as long as it pays."""
    steps = plan.names.tuning.steps
    for times in TIMES:
        if made.tuned is None:
            return made
        tuning = replace(plan.names.tuning, steps=times * steps)
        longer = make(replace(plan, names=replace(plan.names, tuning=tuning)))
        if longer.tuned is None or longer.tuned.loss_at_last >= made.tuned.loss_at_last:
            return made
        pays = longer.tuned.loss_at_last < PAYS * made.tuned.loss_at_last
        made = longer
        if not pays:
            return made
    return made


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
