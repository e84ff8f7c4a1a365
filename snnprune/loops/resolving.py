"""From a recipe as somebody wrote it to one without gaps."""

from __future__ import annotations

from snnprune.data import DataOptions, DataSet
from snnprune.data.others import Other, open_data_with
from snnprune.errors import InputError
from snnprune.forwards import is_own
from snnprune.models import ModelSpec, accepts
from snnprune.recipe import Recipe


def open_recipe_data(recipe: Recipe, options: DataOptions | None = None) -> DataSet:
    """The recipe's data, cut as it says; `options` say where data lie."""
    options = options or DataOptions()
    split = DataOptions(
        root=options.root,
        download=options.download,
        validation=0.0 if recipe.data.evaluation else recipe.data.validation,
        seed=recipe.seed,
        size=recipe.model.args.get("size"),
        channels=recipe.model.args.get("in_channels"),
        whole=is_own(recipe.model.forward),
    )
    others = {
        "test": Other(name=recipe.data.test, field="data.test"),
        "validation": Other(name=recipe.data.evaluation, field="data.evaluation"),
    }
    return open_data_with(recipe.data.name, others, options=split, field="data.name")


def resolved(recipe: Recipe, data: DataSet) -> Recipe:
    """`recipe` with what the data say about channels, size and classes, where it is silent.

    Raises:
        InputError: the model is not known, or has fewer classes than the data.
    """
    spec = spec_of(recipe)
    known = {"in_channels": data.channels, "size": data.size, "classes": data.classes}
    filled = {
        name: value
        for name, value in known.items()
        if value is not None and accepts(spec, name, field="model.name")
    }
    asked = spec.args.get("classes")
    if isinstance(asked, int) and data.classes is not None and asked < data.classes:
        raise InputError(f"{asked}, but the data have {data.classes}", field="model.args.classes")
    model = recipe.model.model_copy(update={"args": {**filled, **spec.args}})
    return recipe.model_copy(update={"model": model})


def spec_of(recipe: Recipe) -> ModelSpec:
    """The model that a recipe asks for."""
    return ModelSpec(name=recipe.model.name, args=recipe.model.args)
