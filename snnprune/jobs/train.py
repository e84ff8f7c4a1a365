"""`snnprune train`: from a recipe to a run folder, in one go or in several."""

from __future__ import annotations

from dataclasses import asdict

from snnprune.checkpoint import write_masks, write_safetensors
from snnprune.jobs.looping import LoopOptions, LoopRun, Say, Work, as_it_was, working
from snnprune.loops.train import Trained, train
from snnprune.progress import SILENT, Progress
from snnprune.report import about_evaluation
from snnprune.runs.folder import BEST, MASK, MODEL


def train_recipe(
    options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> LoopRun:
    """Train, and leave a run folder: recipe first, checkpoints, report, hashes, `DONE` last.

    Raises:
        SnnpruneError: see `working`.
    """
    with working(options, say) as work:
        if work.run.finished:
            return as_it_was(work.run)
        found = train(
            work.recipe,
            work.data,
            device=work.device,
            run=work.run,
            stop=work.stop,
            progress=progress,
        )
        return finish(work, found)


def finish(work: Work, trained: Trained) -> LoopRun:
    """Write what training came to."""
    epochs = trained.epochs
    best = None if trained.best_epoch is None else epochs[trained.best_epoch]
    return work.finish(
        _write(work, trained),
        epochs=[asdict(epoch) for epoch in epochs],
        best=best and asdict(best),
        test=about_evaluation(trained.test),
        tickets=[row for row in work.run.rows if row["kind"] == "ticket"],
    )


def _write(work: Work, trained: Trained) -> list[str]:
    """Write checkpoints and masks; their names."""
    folder, metadata = work.run.folder, work.run.metadata
    written = {MODEL: trained.tensors, BEST: trained.best}
    names = [name for name, tensors in written.items() if tensors]
    for name in names:
        write_safetensors(folder / name, written[name], metadata)
    if not trained.masks:
        return names
    write_masks(folder / MASK, trained.masks, metadata)
    return [*names, MASK]
