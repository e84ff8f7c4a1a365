"""`snnprune imp`: winning tickets from a recipe, in one go or in several."""

from __future__ import annotations

from snnprune.jobs.training.looping import LoopOptions, LoopRun, Say
from snnprune.jobs.training.tickets import find_tickets
from snnprune.loops.imp import imp
from snnprune.progress import SILENT, Progress


def imp_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Find tickets, and leave a run folder with a model and masks for every round.

    Raises:
        SnnpruneError: see `working`.
    """
    return find_tickets(imp, options, progress, say)
