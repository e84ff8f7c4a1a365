"""`snnprune search`: sub-networks of untrained weights from a recipe, in one go or in several."""

from __future__ import annotations

from typing import Protocol

import torch

from snnprune.data.dataset import DataSet
from snnprune.distributed.ranks import Ranks
from snnprune.jobs.train.looping import LoopOptions, LoopRun, Say, Work, working
from snnprune.jobs.train.pictures import draw
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import about_curves, summarised
from snnprune.runtime import SILENT, Progress
from snnprune.training.imp import imp
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.run import Run
from snnprune.training.runs.stopping import Stop
from snnprune.training.search import search
from snnprune.training.tickets import Tickets


class TicketLoop(Protocol):
    """`imp` or `search`."""

    def __call__(
        self,
        recipe: Recipe,
        data: DataSet,
        *,
        device: torch.device,
        run: Run | None,
        stop: Stop,
        progress: Progress,
        ranks: Ranks,
    ) -> Tickets:
        """The tickets of `recipe`, each kept in `run`."""
        ...


def find_tickets(loop: TicketLoop, options: LoopOptions, progress: Progress, say: Say) -> LoopRun:
    """Run `loop`, and leave a run folder with pictures and a report; or the one that is finished.

    Raises:
        SnnpruneError: see `working`.
    """
    with working(options, say) as work:
        if work.finished:
            return work.as_it_was()
        found = loop(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        return work.by_first(lambda folder: _finish(work, folder, found))


def _finish(work: Work, folder: RunFolder, found: Tickets) -> LoopRun:
    """Draw, and write the report."""
    summary = summarised([found.rows])
    pictures = draw(folder.folder, summary, work.recipe)
    return work.finish(pictures, tickets=list(found.rows), summary=about_curves(summary))


def imp_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Find tickets, and leave a run folder with a model and masks for every round.

    Raises:
        SnnpruneError: see `working`.
    """
    return find_tickets(imp, options, progress, say)


def search_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Search, and leave a run folder with a model and masks for every sparsity.

    Raises:
        SnnpruneError: see `working`.
    """
    return find_tickets(search, options, progress, say)
