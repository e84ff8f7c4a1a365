"""`snnprune train`: from a recipe to a run folder, in one go or in several."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from snnprune.checkpoint import write_safetensors
from snnprune.data import DataOptions
from snnprune.device import choose_device
from snnprune.errors import InputError, NonFiniteError, OutputError, StoppedError
from snnprune.evaluation import Evaluation
from snnprune.files import write_json
from snnprune.jobs.recipes import require_names
from snnprune.loops.setup import open_recipe_data, resolved
from snnprune.loops.train import Trained, train
from snnprune.models import ModelSpec
from snnprune.progress import Progress
from snnprune.provenance import DataSpec, described
from snnprune.recipe import Recipe
from snnprune.report import about_evaluation, report
from snnprune.runs import RunFolder, made_with, open_run, require_ready, stopping
from snnprune.runs.folder import BEST, MODEL, RECIPE, REPORT


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the command line asks for."""

    recipe: Recipe
    out: Path
    device: str = "auto"
    data_root: Path | None = None
    download: bool = False
    force: bool = False
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What came of it."""

    test: Evaluation | None
    report: dict[str, Any]
    finished_before: bool = False
    """There was nothing left to do."""


def train_recipe(
    options: TrainOptions, progress: Progress, say: Callable[[str], None] = lambda _: None
) -> TrainedRun:
    """Train, and leave a run folder: recipe first, checkpoints, report, hashes, `DONE` last.

    Raises:
        InputError: the recipe cannot be trained, or there is no such run to resume.
        OutputError: the folder is in use, is not free, or cannot be written.
        NonFiniteError: the loss became NaN or infinite.
        StoppedError: a signal came; the run can be resumed.
    """
    require_names(options.recipe)
    require_ready(options.out, resume=options.resume, force=options.force)
    device = choose_device(options.device)
    places = DataOptions(root=options.data_root, download=options.download)
    data = open_recipe_data(options.recipe, places)
    recipe = resolved(options.recipe, data)
    with (
        open_run(
            options.out,
            recipe,
            made_with(device),
            resume=options.resume,
            force=options.force,
            say=say,
        ) as run,
        _telling_how_to_go_on(options, run),
        stopping() as stop,
    ):
        if run.finished:
            return _as_it_was(run)
        trained = train(recipe, data, device=device, run=run, stop=stop, progress=progress)
        found = _report(run, trained, device)
        _write(run, trained, found)
    return TrainedRun(test=trained.test, report=found)


@contextlib.contextmanager
def _telling_how_to_go_on(options: TrainOptions, run: RunFolder) -> Iterator[None]:
    """Errors that end a run name the command or the state from which it goes on."""
    try:
        yield
    except StoppedError as error:
        error.hint = f"to go on: {resume_command(options)}"
        raise
    except OutputError as error:
        if (run.folder / RECIPE).exists():
            error.hint = f"free some space, then: {resume_command(options)}"
        raise
    except NonFiniteError as error:
        if last := run.states.newest_path():
            error.hint = f"{error.hint}; the last good state is {last}"
        raise


def resume_command(options: TrainOptions) -> str:
    """The command line that continues the run."""
    words = ["snnprune", "train", "--resume", "--out", str(options.out)]
    if options.device != "auto":
        words += ["--device", options.device]
    if options.data_root is not None:
        words += ["--data-root", str(options.data_root)]
    return shlex.join(words)


def _as_it_was(run: RunFolder) -> TrainedRun:
    """The result of a run that was finished before."""
    path = run.folder / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read: {error}", file=path, hint="--force trains again"
        ) from error
    return TrainedRun(test=None, report=found, finished_before=True)


def _report(run: RunFolder, trained: Trained, device: torch.device) -> dict[str, Any]:
    recipe, epochs = trained.recipe, trained.epochs
    best = None if trained.best_epoch is None else epochs[trained.best_epoch]
    return report(
        "train",
        device=device,
        seed=recipe.seed,
        warnings=run.warnings,
        recipe=recipe.model_dump(mode="json"),
        model=recipe.model.model_dump(mode="json"),
        data=asdict(_data_spec(recipe)),
        epochs=[asdict(epoch) for epoch in epochs],
        best=best and asdict(best),
        test=about_evaluation(trained.test),
        outputs=[{"path": str(run.folder / name)} for name in _checkpoints(trained)],
    )


def _write(run: RunFolder, trained: Trained, found: dict[str, Any]) -> None:
    recipe = trained.recipe
    metadata = described(
        "train",
        model=ModelSpec(name=recipe.model.name, args=recipe.model.args),
        data=_data_spec(recipe),
    )
    tensors = {MODEL: trained.network.module.state_dict(), BEST: trained.best}
    names = _checkpoints(trained)
    for name in names:
        write_safetensors(run.folder / name, tensors[name], metadata)
    write_json(run.folder / REPORT, found)
    run.finish([*names, REPORT])


def _checkpoints(trained: Trained) -> list[str]:
    return [MODEL, BEST] if trained.best else [MODEL]


def _data_spec(recipe: Recipe) -> DataSpec:
    return DataSpec(name=recipe.data.name, validation=recipe.data.validation, seed=recipe.seed)
