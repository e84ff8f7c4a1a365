"""`snnprune train`, `imp` and `search`: from a recipe to a run folder, in one go or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import torch

from snnprune.data import DataSet
from snnprune.distributed.ranks import Ranks
from snnprune.jobs.train.looping import (
    Job,
    LoopJob,
    LoopRun,
    Say,
    draw_run,
    prepare_loop,
)
from snnprune.jobs.train.options import LoopOptions
from snnprune.recipe.schema import Recipe
from snnprune.report import describe_evaluation
from snnprune.report.curves import describe_curves, summarize_runs
from snnprune.runtime import SILENT, Progress
from snnprune.training.imp import imp
from snnprune.training.runs import Run, StopSignal
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.ownership import BEST, MODEL
from snnprune.training.search import search
from snnprune.training.tickets import TicketResults
from snnprune.training.train import TrainedNetwork, train

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class Loop(Protocol[Found_co]):
    """`train`, `imp` or `search`."""

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
    ) -> Found_co:
        """What `recipe` comes to, each network kept in `run`."""
        ...


def train_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Train, and leave a run folder: recipe first, checkpoints, report, hashes, `DONE` last.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    return _run_loop(train, write_training, options, progress, say)


def imp_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Find tickets, and leave a run folder with a model and masks for every round.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    return _run_loop(imp, _write_tickets, options, progress, say)


def search_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Search, and leave a run folder with a model and masks for every sparsity.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    return _run_loop(search, _write_tickets, options, progress, say)


JOBS: Mapping[str, Job] = {"train": train_recipe, "imp": imp_recipe, "search": search_recipe}


def _run_loop(
    loop: Loop[Found],
    finish: Callable[[LoopJob, RunFolder, Found], LoopRun],
    options: LoopOptions,
    progress: Progress,
    say: Say,
) -> LoopRun:
    """Run `loop`, and `finish` its folder with what it found; or the run that is finished."""
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
        return work.by_first(lambda folder: finish(work, folder, found))


def write_training(
    work: LoopJob,
    folder: RunFolder,
    trained: TrainedNetwork,
    *,
    inputs: Sequence[Mapping[str, str]] = (),
    **findings: Any,
) -> LoopRun:
    """Write what training, which may have begun with files, came to."""
    epochs = trained.epochs
    best = None if trained.best_epoch is None else epochs[trained.best_epoch]
    tickets = [row for row in folder.rows if row["kind"] == "ticket"]
    pictures = draw_run(folder.folder, summarize_runs([tickets]), work.recipe)
    return work.finish(
        [*_write_networks(folder, trained), *pictures],
        inputs=inputs,
        **findings,
        epochs=[asdict(epoch) for epoch in epochs],
        best=best and asdict(best),
        test=describe_evaluation(trained.test),
        tickets=tickets,
    )


def _write_networks(run: RunFolder, trained: TrainedNetwork) -> list[str]:
    """Write checkpoints and masks; their names."""
    return run.write({MODEL: trained.tensors, BEST: trained.best}, trained.masks)


def _write_tickets(work: LoopJob, folder: RunFolder, found: TicketResults) -> LoopRun:
    """Draw, and write the report."""
    summary = summarize_runs([found.rows])
    pictures = draw_run(folder.folder, summary, work.recipe)
    return work.finish(pictures, tickets=list(found.rows), summary=describe_curves(summary))
