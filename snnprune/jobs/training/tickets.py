"""What the commands that find tickets share: run the loop, draw, report."""

from __future__ import annotations

from typing import Protocol

import torch

from snnprune.curves import about_curves, summarised
from snnprune.data import DataSet
from snnprune.distributed import Ranks
from snnprune.jobs.training.looping import LoopOptions, LoopRun, Say, Work, working
from snnprune.jobs.training.pictures import draw
from snnprune.loops.tickets import Tickets
from snnprune.progress import Progress
from snnprune.recipe import Recipe
from snnprune.runs import Run, RunFolder, Stop


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
