"""Which criterion, allocation and repair a checkpoint is pruned by."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.jobs.pruning.options import PruneOptions
from snnprune.jobs.pruning.repairing import choose_repair
from snnprune.jobs.subjects.subject import Subject
from snnprune.one_shot import Plan
from snnprune.structure import UNSTRUCTURED

BEST = Plan(criterion="sf-obs", allocation="lamp-magnitude", repair="obs")
"""The best that was measured where network and data are at hand; see docs/results."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How it is pruned, and why so."""

    plan: Plan
    why: str


def choose(subject: Subject, options: PruneOptions) -> Choice:
    """What was asked for, and for the rest the best known for what is at hand.

    Beside a criterion that was asked for, the allocation is the one that fits its scores and the
    repair is `bn` where it can be; what goes with `sf-obs` was measured with `sf-obs` alone.

    Raises:
        InputError: the repair that was asked for cannot be had.
    """
    criterion, allocation, repair, why = _defaults(subject, options)
    if options.structure not in (None, UNSTRUCTURED):
        allocation = None  # channels and patterns have their own way
    plan = Plan(
        criterion=criterion,
        allocation=options.allocation or allocation,
        repair=choose_repair(subject, options.repair, otherwise=repair),
        steps=options.steps or 1,
    )
    return Choice(plan=plan, why=why)


def _defaults(subject: Subject, options: PruneOptions) -> tuple[str, str | None, str | None, str]:
    """Criterion, allocation, repair (None: what fits), and why."""
    if options.criterion is not None:
        return options.criterion, None, None, "asked for"
    if subject.runnable is not None:
        return BEST.criterion, BEST.allocation, BEST.repair, "the network and its data are at hand"
    if subject.network is not None and options.calibration is not None:
        return "sf", None, "none", "the network and its calibration are at hand"
    return "magnitude", "lamp", "none", subject.missing or "the network is not at hand"
