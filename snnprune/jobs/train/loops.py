"""The loops by the names of their commands; those that find tickets, in one go or in several."""

import functools
from collections.abc import Mapping
from typing import Protocol

import torch

from snnprune.data.dataset import DataSet
from snnprune.distributed.ranks import Ranks
from snnprune.jobs.train.finetune import finetune_checkpoint
from snnprune.jobs.train.looping import LoopJob, LoopOptions, LoopRun, Say, prepare_loop
from snnprune.jobs.train.options import FinetuneFiles
from snnprune.jobs.train.pictures import draw_run
from snnprune.jobs.train.seeds import Job
from snnprune.jobs.train.train import train_recipe
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import describe_curves, summarize_runs
from snnprune.runtime import SILENT, Progress
from snnprune.training.imp import imp
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.run import Run
from snnprune.training.runs.stopping import StopSignal
from snnprune.training.search import search
from snnprune.training.tickets import TicketResults


class TicketLoop(Protocol):
    """`imp` or `search`."""

    def __call__(
        self,
        recipe: Recipe,
        data: DataSet,
        *,
        device: torch.device,
        run: Run | None,
        stop: StopSignal,
        progress: Progress,
        ranks: Ranks,
    ) -> TicketResults:
        """The tickets of `recipe`, each kept in `run`."""
        ...


def find_tickets(loop: TicketLoop, options: LoopOptions, progress: Progress, say: Say) -> LoopRun:
    """Run `loop`, and leave a run folder with pictures and a report; or the one that is finished.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    with prepare_loop(options, say) as work:
        if work.finished:
            return work.read_result()
        found = loop(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        return work.by_first(lambda folder: _write_tickets(work, folder, found))


def _write_tickets(work: LoopJob, folder: RunFolder, found: TicketResults) -> LoopRun:
    """Draw, and write the report."""
    summary = summarize_runs([found.rows])
    pictures = draw_run(folder.folder, summary, work.recipe)
    return work.finish(pictures, tickets=list(found.rows), summary=describe_curves(summary))


def imp_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Find tickets, and leave a run folder with a model and masks for every round.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    return find_tickets(imp, options, progress, say)


def search_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Search, and leave a run folder with a model and masks for every sparsity.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    return find_tickets(search, options, progress, say)


JOBS: Mapping[str, Job] = {"train": train_recipe, "imp": imp_recipe, "search": search_recipe}


def job_of(command: str, files: FinetuneFiles | None = None) -> Job:
    """What `command` runs; `finetune` begins with `files`."""
    return JOBS[command] if files is None else functools.partial(finetune_checkpoint, files)
