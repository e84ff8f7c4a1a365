"""`snnprune train`: from a recipe to a run folder, in one go or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from snnprune.jobs.train.looping import LoopJob, LoopOptions, LoopRun, Say, prepare_loop
from snnprune.jobs.train.pictures import draw_run
from snnprune.report.curves import summarize_runs
from snnprune.report.frame import describe_evaluation
from snnprune.runtime import SILENT, Progress
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.ownership import BEST, MODEL
from snnprune.training.train import TrainedNetwork, train


def train_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Train, and leave a run folder: recipe first, checkpoints, report, hashes, `DONE` last.

    Raises:
        SnnpruneError: see `prepare_loop`.
    """
    with prepare_loop(options, say) as work:
        if work.finished:
            return work.read_result()
        found = train(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        return work.by_first(lambda folder: write_training(work, folder, found))


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
