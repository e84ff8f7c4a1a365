"""`snnprune search`: sub-networks of untrained weights from a recipe, in one go or in several."""

from __future__ import annotations

from snnprune.jobs.training.looping import LoopOptions, LoopRun, Say
from snnprune.jobs.training.tickets import find_tickets
from snnprune.loops.search import search
from snnprune.progress import SILENT, Progress


def search_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Search, and leave a run folder with a model and masks for every sparsity.

    Raises:
        SnnpruneError: see `working`.
    """
    return find_tickets(search, options, progress, say)
