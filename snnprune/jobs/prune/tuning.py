"""Whether and how a network is tuned where nobody says."""

from __future__ import annotations

from dataclasses import dataclass, replace

from snnprune.errors import InputError
from snnprune.jobs.prune.tune_options import TuneOptions
from snnprune.jobs.targets.target import Target
from snnprune.pruning.repair.settings import TuneSettings
from snnprune.pruning.repair.tuning_cost import measure_step
from snnprune.text import format_names, layer_name

MINUTE = 12 * 10**11
"""Multiply-adds that two cores do in about a minute of such steps."""
GPU = 50  # times as many
STEPS, LEAST = 480, 120
"""Steps that are enough, and the fewest that were better than the closed form alone."""


@dataclass(frozen=True, kw_only=True)
class TuneChoice:
    """How it is tuned, and why so."""

    settings: TuneSettings | None
    """None: it is not."""
    why: str


def choose_tuning(target: Target, options: TuneOptions) -> TuneChoice:
    """As asked for, and as many steps as are done in about a minute where nobody says how many.

    The number follows from the multiply-adds of a step and not from a clock, so that it is the
    same on every machine.

    Raises:
        InputError: there are no samples.
    """
    if options.closed_form:
        return TuneChoice(settings=None, why="closed form was asked for")
    settings = make_settings(target, options)
    if options.tune_steps is not None:
        return TuneChoice(settings=settings, why="the number of steps was asked for")
    network = target.require_runnable()
    try:
        cost = measure_step(network, target.calibration_batches())
    except InputError as error:
        return TuneChoice(settings=None, why=f"not tuned: {error.message}")
    unreached = [key for key in cost.unreached if key in target.find_weights()]
    if unreached:
        names = format_names([layer_name(key) for key in unreached])
        return TuneChoice(settings=None, why=f"not tuned: no gradient reaches {names}")
    budget = MINUTE * (1 if target.device.type == "cpu" else GPU)
    steps = min(STEPS, budget // max(1, cost.multiply_adds))
    size = f"{cost.multiply_adds / 1e9:.3g} G multiply-adds"
    if steps < LEAST and not options.thorough:
        return TuneChoice(
            settings=None,
            why=f"not tuned: a step takes {size}, {LEAST} of them more than about a minute",
        )
    steps = max(steps, LEAST)
    return TuneChoice(settings=replace(settings, steps=steps), why=f"{steps} steps of {size} each")


def make_settings(target: Target, options: TuneOptions) -> TuneSettings:
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
