"""`snnprune finetune`: a pruned checkpoint is trained on, in one go or in several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.read import files_of, read_checkpoint
from snnprune.errors import InputError, OutputError
from snnprune.files.writing import sha256_of
from snnprune.jobs.targets.binding import bound, load
from snnprune.jobs.train.holding import Held, held_masks, masks_beside
from snnprune.jobs.train.looping import LoopOptions, LoopRun, Say, Work, data_spec, working
from snnprune.jobs.train.options import FinetuneFiles
from snnprune.jobs.train.train import finish
from snnprune.masks import prunable, pruned
from snnprune.models import ModelSpec, argument
from snnprune.recipe.schema import Recipe
from snnprune.report.provenance import DataSpec, data_in, model_in
from snnprune.runtime import SILENT, Progress
from snnprune.training.finetune import finetune, tuned
from snnprune.training.methods import PRUNED
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.run import RunFrom, require_same_inputs
from snnprune.training.setup import Setup, set_up, spec_of
from snnprune.training.train import Trained


def contradictions(checkpoint: Checkpoint, recipe: Recipe) -> tuple[str, ...]:
    """A line for each; a file that says nothing contradicts nothing."""
    metadata = checkpoint.metadata
    model = model_in(metadata, asked=recipe.model.name)
    data = data_in(metadata, asked=recipe.data.name)
    name = checkpoint.path.name
    found = _of_models(model, spec_of(recipe)) if model else []
    found += _of_data(data, data_spec(recipe)) if data else []
    return tuple(f"{name} {line}" for line in found)


def _of_models(own: ModelSpec, asked: ModelSpec) -> list[str]:
    if own.name != asked.name:
        return [f"says that it is of the model {own.name}, the recipe names {asked.name}"]
    names = dict.fromkeys([*own.args, *asked.args])
    pairs = ((name, argument(own, name), argument(asked, name)) for name in names)
    return [
        f"says that its model has {name} {before}, that of the recipe has {now}"
        for name, before, now in pairs
        if before != now
    ]


def _of_data(own: DataSpec, asked: DataSpec) -> list[str]:
    if own.name != asked.name:
        return [f"says that it was trained on {own.name}, the recipe names {asked.name}"]
    if asked.validation == 0 or (own.validation, own.seed) == (asked.validation, asked.seed):
        return []
    return [
        f"was trained with validation images {own.validation:g} by seed {own.seed}, now they are "
        f"{asked.validation:g} by seed {asked.seed}: it has seen some of them"
    ]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files as they were read."""

    checkpoint: Checkpoint
    teacher: Checkpoint | None
    masks: Path | None
    asked: bool
    """Whether the masks were asked for, and not only found."""
    entries: tuple[Mapping[str, str], ...]
    """Of a report: role, path and SHA-256."""

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 by role."""
        return {entry["role"]: entry["sha256"] for entry in self.entries}


def finetune_checkpoint(
    files: FinetuneFiles,
    options: LoopOptions,
    progress: Progress = SILENT,
    say: Say = lambda _: None,
) -> LoopRun:
    """Train on, and leave a run folder as `train` does.

    Raises:
        InputError: a file cannot be read, does not fit the recipe's model, or is not the one that
            the run to resume began with.
        SnnpruneError: see `working`.
    """
    tuned(options.recipe)  # refused before anything is read
    sources = read_sources(files)
    _require_apart(sources, options)
    with working(replace(options, arguments=files.arguments), say) as work:
        if work.finished:
            return _unchanged(work.as_it_was(), sources)
        setup = set_up(
            tuned(work.recipe),
            work.data,
            device=work.device,
            run=RunFrom(work.run, sources.hashes),
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        held, teacher = begun(setup, sources)
        say(held.describe())
        found = finetune(setup, held.masks, teacher)
        notes = (*sources.checkpoint.notes, *contradictions(sources.checkpoint, setup.recipe))
        notes += held.notes
        return work.by_first(lambda folder: _finish(work, folder, found, sources, held, notes))


def read_sources(files: FinetuneFiles) -> Sources:
    """Read what `files` names, with the masks that lie beside the checkpoint.

    Raises:
        InputError: one cannot be read.
    """
    checkpoint = read_checkpoint(files.checkpoint, entry=files.state_dict)
    teacher = read_checkpoint(files.teacher) if files.teacher else None
    masks = files.masks or masks_beside(files.checkpoint)
    entries = [_entry("checkpoint", checkpoint.path, checkpoint.sha256)]
    entries += [_entry("masks", masks, sha256_of(masks))] if masks else []
    entries += [_entry("teacher", teacher.path, teacher.sha256)] if teacher else []
    return Sources(
        checkpoint=checkpoint,
        teacher=teacher,
        masks=masks,
        asked=files.masks is not None,
        entries=tuple(entries),
    )


def begun(setup: Setup, sources: Sources) -> tuple[Held, Setup | None]:
    """Put the checkpoint into the network of `setup`; its masks, and the teacher beside it.

    Raises:
        InputError: a file does not fit the network.
    """
    checkpoint = _loaded(setup.module, sources.checkpoint)
    held = held_masks(setup.network, checkpoint, sources.masks, asked=sources.asked)
    assert setup.recipe.finetune is not None
    if sources.teacher is None:
        return held, None
    if setup.recipe.finetune.distillation == 0:
        note = "--teacher is not used: finetune.distillation is 0"
        return replace(held, notes=(*held.notes, note)), None
    teacher = setup.with_args()
    _loaded(teacher.module, sources.teacher)
    return held, teacher


def _loaded(module: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint by the keys of `module`, which has its tensors now."""
    with _blaming_the_recipe():
        fitting = bound(module, checkpoint)
    load(module, fitting.tensors)
    return fitting


@contextlib.contextmanager
def _blaming_the_recipe() -> Iterator[None]:
    """There is no --model here: the recipe names it."""
    try:
        yield
    except InputError as error:
        if error.hint and "--model" in error.hint:
            error.hint = "is it of the model that the recipe names, with the same arguments?"
        raise


def _require_apart(sources: Sources, options: LoopOptions) -> None:
    """Refuse to clear a folder in which an input lies."""
    if not options.force:
        return
    folder = options.out.resolve()
    for entry in sources.entries:
        for path in files_of(Path(entry["path"])):
            if path.resolve().is_relative_to(folder):
                raise OutputError(
                    f"the run's folder holds its input {path.name}",
                    file=options.out,
                    hint="choose another folder for --out",
                )


def _unchanged(finished: LoopRun, sources: Sources) -> LoopRun:
    """A finished run, which must be one of the same files."""
    before = {entry["role"]: entry["sha256"] for entry in finished.report["inputs"]}
    require_same_inputs(sources.hashes, before, finished.out)
    return finished


def _entry(role: str, path: Path, sha256: str) -> dict[str, str]:
    return {"role": role, "path": str(path), "sha256": sha256}


def _finish(
    work: Work,
    folder: RunFolder,
    found: Trained,
    sources: Sources,
    held: Held,
    notes: tuple[str, ...],
) -> LoopRun:
    """Write the run's results."""
    folder.warnings += [note for note in notes if note not in folder.warnings]
    before = next(row for row in folder.rows if row.get("method") == PRUNED)
    return finish(
        work,
        folder,
        found,
        inputs=sources.entries,
        before=before["test"] or before["measured"],
        masks={
            "from": held.origin,
            "pruned": pruned(held.masks),
            "prunable": prunable(held.masks),
        },
    )
