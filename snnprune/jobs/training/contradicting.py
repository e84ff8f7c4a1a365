"""Where a checkpoint's own metadata says something else than the recipe that trains it on."""

from __future__ import annotations

from snnprune.checkpoint import Checkpoint
from snnprune.jobs.training.looping import data_spec
from snnprune.loops.resolving import spec_of
from snnprune.models import ModelSpec, argument
from snnprune.provenance import DataSpec, data_in, model_in
from snnprune.recipe import Recipe


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
