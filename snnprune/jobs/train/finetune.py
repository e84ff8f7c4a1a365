"""`snnprune finetune`: a pruned checkpoint is trained on, its masks held, in one go or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.containers import files_of, read_checkpoint
from snnprune.checkpoint.mask_file import read_masks, read_partner
from snnprune.data import DataSpec
from snnprune.errors import InputError, Note, OutputError, format_count
from snnprune.files.reading import hash_file
from snnprune.graph.network import Network
from snnprune.jobs.targets.binding import bind_checkpoint, load_tensors
from snnprune.jobs.targets.provenance import read_data_spec, read_model_spec
from snnprune.jobs.train.looping import (
    LoopJob,
    LoopRun,
    Say,
    make_data_spec,
    prepare_loop,
)
from snnprune.jobs.train.options import FinetuneFiles, LoopOptions
from snnprune.jobs.train.train import write_training
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.models import ModelSpec, read_argument
from snnprune.recipe.schema import Recipe
from snnprune.runtime import SILENT, Progress
from snnprune.training import PRUNED
from snnprune.training.finetune import finetune, make_finetune_recipe
from snnprune.training.ranking import copy_prunable_weights, make_full_masks
from snnprune.training.runs import RunWithInputs, require_same_inputs
from snnprune.training.runs.folder import RunFolder
from snnprune.training.runs.ownership import BEST, MASK, MODEL
from snnprune.training.setup import TrainingSetup, set_up, spec_of
from snnprune.training.train import TrainedNetwork


def list_contradictions(checkpoint: Checkpoint, recipe: Recipe) -> tuple[str, ...]:
    """A line for each; a file that says nothing contradicts nothing."""
    metadata = checkpoint.metadata
    model = read_model_spec(metadata, asked=recipe.model.name)
    data = read_data_spec(metadata, asked=recipe.data.name)
    name = checkpoint.path.name
    found = _compare_models(model, spec_of(recipe)) if model else []
    found += _compare_data(data, make_data_spec(recipe)) if data else []
    return tuple(f"{name} {line}" for line in found)


def _compare_models(own: ModelSpec, asked: ModelSpec) -> list[str]:
    if own.name != asked.name:
        return [f"says that it is of the model {own.name}, the recipe names {asked.name}"]
    names = dict.fromkeys([*own.args, *asked.args])
    pairs = ((name, read_argument(own, name), read_argument(asked, name)) for name in names)
    return [
        f"says that its model has {name} {before}, that of the recipe has {now}"
        for name, before, now in pairs
        if before != now
    ]


def _compare_data(own: DataSpec, asked: DataSpec) -> list[str]:
    if own.name != asked.name:
        return [f"says that it was trained on {own.name}, the recipe names {asked.name}"]
    if asked.validation == 0 or (own.validation, own.seed) == (asked.validation, asked.seed):
        return []
    return [
        f"was trained with validation samples {own.validation:g} by seed {own.seed}, now they are "
        f"{asked.validation:g} by seed {asked.seed}: it has seen some of them"
    ]


@dataclass(frozen=True, kw_only=True)
class FinetuneSources:
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
        SnnpruneError: see `prepare_loop`.
    """
    make_finetune_recipe(options.recipe)  # refused before anything is read
    sources = read_sources(files)
    _require_apart(sources, options)
    with prepare_loop(replace(options, arguments=files.arguments), say) as work:
        if work.finished:
            return _require_same_sources(work.read_result(), sources)
        setup = set_up(
            make_finetune_recipe(work.recipe),
            work.data,
            device=work.device,
            run=RunWithInputs(work.run, sources.hashes),
            stop=work.stop,
            progress=progress,
            ranks=work.ranks,
        )
        held, teacher = load_for_finetune(setup, sources)
        say(held.describe())
        found = finetune(setup, held.masks, teacher)
        notes = (*sources.checkpoint.notes, *list_contradictions(sources.checkpoint, setup.recipe))
        notes += held.notes
        return work.by_first(lambda folder: _finish(work, folder, found, sources, held, notes))


def read_sources(files: FinetuneFiles) -> FinetuneSources:
    """Read what `files` names, with the masks that lie beside the checkpoint.

    Raises:
        InputError: one cannot be read.
    """
    checkpoint = read_checkpoint(files.checkpoint, entry=files.state_dict)
    teacher = read_checkpoint(files.teacher) if files.teacher else None
    masks = files.masks or find_mask_file(files.checkpoint)
    entries = [_make_entry("checkpoint", checkpoint.path, checkpoint.sha256)]
    entries += [_make_entry("masks", masks, hash_file(masks))] if masks else []
    entries += [_make_entry("teacher", teacher.path, teacher.sha256)] if teacher else []
    return FinetuneSources(
        checkpoint=checkpoint,
        teacher=teacher,
        masks=masks,
        asked=files.masks is not None,
        entries=tuple(entries),
    )


def load_for_finetune(
    setup: TrainingSetup, sources: FinetuneSources
) -> tuple[FixedMasks, TrainingSetup | None]:
    """Put the checkpoint into the network of `setup`; its masks, and the teacher beside it.

    Raises:
        InputError: a file does not fit the network.
    """
    checkpoint = _load_checkpoint(setup.module, sources.checkpoint)
    held = read_fixed_masks(setup.network, checkpoint, sources.masks, asked=sources.asked)
    assert setup.recipe.finetune is not None
    if sources.teacher is None:
        return held, None
    if setup.recipe.finetune.distillation == 0:
        note = "--teacher is not used: finetune.distillation is 0"
        return replace(held, notes=(*held.notes, note)), None
    teacher = setup.rebuild_with_args()
    _load_checkpoint(teacher.module, sources.teacher)
    return held, teacher


def _load_checkpoint(module: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint by the keys of `module`, which has its tensors now."""
    with _blame_recipe():
        fitting = bind_checkpoint(module, checkpoint)
    load_tensors(module, fitting.tensors)
    return fitting


@contextlib.contextmanager
def _blame_recipe() -> Iterator[None]:
    """There is no --model here: the recipe names it."""
    try:
        yield
    except InputError as error:
        if error.hint and "--model" in error.hint:
            error.hint = "is it of the model that the recipe names, with the same arguments?"
        raise


def _require_apart(sources: FinetuneSources, options: LoopOptions) -> None:
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


def _require_same_sources(finished: LoopRun, sources: FinetuneSources) -> LoopRun:
    """A finished run, which must be one of the same files."""
    before = {entry["role"]: entry["sha256"] for entry in finished.report["inputs"]}
    require_same_inputs(sources.hashes, before, finished.out)
    return finished


def _make_entry(role: str, path: Path, sha256: str) -> dict[str, str]:
    return {"role": role, "path": str(path), "sha256": sha256}


def _finish(
    work: LoopJob,
    folder: RunFolder,
    found: TrainedNetwork,
    sources: FinetuneSources,
    held: FixedMasks,
    notes: tuple[str, ...],
) -> LoopRun:
    """Write the run's results."""
    folder.warnings += [note for note in notes if note not in folder.warnings]
    before = next(row for row in folder.rows if row.get("method") == PRUNED)
    return write_training(
        work,
        folder,
        found,
        inputs=sources.entries,
        before=before["test"] or before["measured"],
        masks={
            "from": held.origin,
            "pruned": count_pruned(held.masks),
            "prunable": count_prunable(held.masks),
        },
    )


@dataclass(frozen=True, kw_only=True)
class FixedMasks:
    """Masks for every layer of a network."""

    masks: Masks
    origin: str
    """What they were taken from: the name of a file, or that it was the zeros."""
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """How much they prune, and why."""
        weights = count_prunable(self.masks)
        share = count_pruned(self.masks) / weights
        return f"holding {share:.2%} of {format_count(weights, 'weight')} at 0: {self.origin}"


def find_mask_file(checkpoint: Path) -> Path | None:
    """The mask file that `prune`, or a run, wrote beside a checkpoint; None without one."""
    names = [f"{checkpoint.stem}.mask.safetensors", f"{checkpoint.name}.mask.safetensors"]
    names += [MASK] if checkpoint.name in (MODEL, BEST) else []
    found = (checkpoint.with_name(name) for name in names)
    return next((path for path in found if path.is_file()), None)


def read_fixed_masks(
    network: Network, checkpoint: Checkpoint, path: Path | None, *, asked: bool
) -> FixedMasks:
    """The masks of the file at `path`, or without one, of what is 0 in `checkpoint`.

    `network` has the weights of `checkpoint`. A weight without a mask is kept whole. A file that
    was `asked` for may prune more than is 0.

    Raises:
        InputError: nothing can be pruned, or the file is not of this network.
    """
    weights = copy_prunable_weights(network)
    if path is None:
        masks = {key: weight != 0 for key, weight in weights.items()}
        notes = () if count_pruned(masks) else ("nothing is pruned: no prunable weight is 0",)
        return FixedMasks(masks=masks, origin="those that are 0 in the checkpoint", notes=notes)
    named, unused = _rename_masks(read_masks(path), network, checkpoint, path)
    masks = make_full_masks(weights) | named
    more = sum(int((weights[key] != 0)[~mask].sum()) for key, mask in masks.items())
    if more and not asked:
        raise InputError(
            f"prunes {format_count(more, 'weight')} that are not 0 in {checkpoint.path.name}",
            file=path,
            hint="--masks holds them at 0 all the same",
        )
    if not asked:
        _require_partner(path, checkpoint, masks, weights)
    lines: list[str] = [Note(f"no layer uses {key}: its mask is not held") for key in unused]
    if more:
        lines.append(f"{path.name} prunes {format_count(more, 'weight')} that were not 0")
    return FixedMasks(masks=masks, origin=f"masks of {path.name}", notes=tuple(lines))


def _require_partner(
    path: Path, checkpoint: Checkpoint, masks: Masks, weights: Mapping[str, Tensor]
) -> None:
    """Refuse masks that a crash, or somebody, left beside another file than their own.

    They may say what the zeros say: then it is the same network in a file that was written again.

    Raises:
        InputError: they were written with another file, and say something else.
    """
    partner = read_partner(path)
    if partner is None or partner == checkpoint.sha256:
        return
    if all(torch.equal(mask, weights[key] != 0) for key, mask in masks.items()):
        return
    raise InputError(
        f"was written with another file than {checkpoint.path.name} is now",
        file=path,
        hint="prune again, or let --masks hold them all the same",
    )


def _rename_masks(
    masks: Masks, network: Network, checkpoint: Checkpoint, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Masks by the keys of the network, from those by the keys of the checkpoint's file.

    And the keys of weights that are none of a layer's.
    """
    keys = {name: key for key, name in checkpoint.names.items()}
    parameters = dict(network.module.named_parameters())
    named = {keys.get(name, name): mask for name, mask in masks.items()}
    for key, mask in named.items():
        if key not in parameters:
            raise InputError("is no weight of the model", file=path, field=key)
        if mask.shape != parameters[key].shape:
            shapes = f"has shape {list(mask.shape)}, the weight {list(parameters[key].shape)}"
            raise InputError(shapes, file=path, field=key)
    used = {key: mask for key, mask in named.items() if key in network.layers}
    return used, [key for key in named if key not in used]
