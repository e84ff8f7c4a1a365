"""Which of several prunings of a network is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from snnprune.jobs.prune.methods import MethodChoice
from snnprune.jobs.prune.pruned_model import PrunedModel

TIMES = (3, 9, 27)
"""How many times as many steps each further try takes."""
PAYS = 0.97
"""Of the loss before: a try that is not below it does not pay."""


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
