"""`snnprune train`: from a recipe to a run folder, in one go or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from snnprune.jobs.train.looping import LoopOptions, LoopRun, Say, Work, working
from snnprune.jobs.train.pictures import draw
from snnprune.report.curves import summarised
from snnprune.report.frame import about_evaluation
from snnprune.runtime import SILENT, Progress
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.ownership import BEST, MODEL
from snnprune.training.train import Trained, train


def train_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Train, and leave a run folder: recipe first, checkpoints, report, hashes, `DONE` last.

    Raises:
        SnnpruneError: see `working`.
    """
    with working(options, say) as work:
        if work.finished:
            return work.as_it_was()
        found = train(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        return work.by_first(lambda folder: finish(work, folder, found))


def finish(
    work: Work,
    folder: RunFolder,
    trained: Trained,
    *,
    inputs: Sequence[Mapping[str, str]] = (),
    **findings: Any,
) -> LoopRun:
    """Write what training, which may have begun with files, came to."""
    epochs = trained.epochs
    best = None if trained.best_epoch is None else epochs[trained.best_epoch]
    tickets = [row for row in folder.rows if row["kind"] == "ticket"]
    pictures = draw(folder.folder, summarised([tickets]), work.recipe)
    return work.finish(
        [*_write(folder, trained), *pictures],
        inputs=inputs,
        **findings,
        epochs=[asdict(epoch) for epoch in epochs],
        best=best and asdict(best),
        test=about_evaluation(trained.test),
        tickets=tickets,
    )


def _write(run: RunFolder, trained: Trained) -> list[str]:
    """Write checkpoints and masks; their names."""
    return run.write({MODEL: trained.tensors, BEST: trained.best}, trained.masks)
