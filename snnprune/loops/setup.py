"""What a loop starts from: data, a recipe without gaps, a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.models import ModelSpec, accepts, build_model
from snnprune.network import Network, trace
from snnprune.randomness import derived_seed
from snnprune.recipe import Recipe
from snnprune.user_code import calling_user_code


def open_recipe_data(recipe: Recipe, options: DataOptions | None = None) -> DataSet:
    """The recipe's data, cut as it says; `options` say where data lie."""
    options = options or DataOptions()
    split = DataOptions(
        root=options.root,
        download=options.download,
        validation=recipe.data.validation,
        seed=recipe.seed,
        size=recipe.model.args.get("size"),
        channels=recipe.model.args.get("in_channels"),
    )
    return open_data(recipe.data.name, options=split, field="data.name")


def resolved(recipe: Recipe, data: DataSet) -> Recipe:
    """`recipe` with what the data say about channels, size and classes, where it is silent.

    Raises:
        InputError: the model is not known, or has fewer classes than the data.
    """
    spec = ModelSpec(name=recipe.model.name, args=recipe.model.args)
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


def training_images(data: DataSet, recipe: Recipe) -> ImageSplit:
    """The images to train on.

    Raises:
        InputError: they have no labels, or are too few for a batch.
    """
    images = data.train
    if not isinstance(images, ImageSplit) or images.labels is None:
        raise InputError(
            "has no labelled images to train on", file=recipe.data.name, field="data.name"
        )
    if images.steps(recipe.training.batch_size) == 0:
        raise InputError("has too few images", file=recipe.data.name, field="data.name")
    return images


def initial_network(recipe: Recipe, images: ImageSplit, device: torch.device) -> Network:
    """The network of a resolved recipe with its first weights, on `device`."""
    spec = ModelSpec(name=recipe.model.name, args=recipe.model.args)
    module = _initialised(spec, recipe.seed).to(device)
    return _traced(module, next(images.batches(2, device=device))[0], spec)


def _initialised(spec: ModelSpec, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "weights"))
        return build_model(spec, field="model")


def _traced(module: nn.Module, example: Tensor, spec: ModelSpec) -> Network:
    what = f"running {spec.name} on a batch of shape {tuple(example.shape)}"
    with calling_user_code(what, field="model.name"):
        return trace(module, example)
