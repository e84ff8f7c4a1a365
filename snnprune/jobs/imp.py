"""`snnprune imp`: winning tickets from a recipe, in one go or in several."""

from __future__ import annotations

from snnprune.curves import about_curves, summarised
from snnprune.jobs.looping import LoopOptions, LoopRun, Say, as_it_was, working
from snnprune.jobs.pictures import draw
from snnprune.loops.imp import imp
from snnprune.progress import SILENT, Progress


def imp_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Find tickets, and leave a run folder with a model and masks for every round.

    Raises:
        SnnpruneError: see `working`.
    """
    with working(options, say) as work:
        if work.run.finished:
            return as_it_was(work.run)
        found = imp(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
        )
        summary = summarised([found.rows])
        pictures = draw(work.run.folder, summary, work.recipe)
        return work.finish(pictures, tickets=list(found.rows), summary=about_curves(summary))
