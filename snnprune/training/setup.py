"""What a loop works with: a network with its first weights, data, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from snnprune.data import (
    Augmentation,
    DataOptions,
    DataSet,
    OtherData,
    Split,
    TrainingSplit,
    open_data_with,
)
from snnprune.data.batches import Batches, describe_batch
from snnprune.data.images import ImageSplit
from snnprune.data.loader import LoaderSplit
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import InputError
from snnprune.graph.forward import (
    Forward,
    Readout,
    load_forward,
    load_reading,
    place_time_first,
)
from snnprune.graph.network import Network
from snnprune.graph.state import unwrap
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.models import ModelSpec, build_model, has_argument
from snnprune.plugins.names import explain_text_argument, flag_of, is_own_function
from snnprune.plugins.user_code import guard_user_code
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import TrainingSection
from snnprune.runtime import SILENT, Progress, seed_draws
from snnprune.training.fit import TrainSpan
from snnprune.training.optimization import Objective
from snnprune.training.runs import NEVER, Run, StopSignal, Unsaved
from snnprune.training.step import Trainer


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
        whole=is_own_function(recipe.model.forward),
    )
    others = {
        "test": OtherData(name=recipe.data.test, field="data.test"),
        "validation": OtherData(name=recipe.data.evaluation, field="data.evaluation"),
    }
    return open_data_with(recipe.data.name, others, options=split, field="data.name")


def resolve_recipe(recipe: Recipe, data: DataSet) -> Recipe:
    """`recipe` with what the data say about channels, size and classes, where it is silent.

    Raises:
        InputError: the model is not known, or has fewer classes than the data.
    """
    spec = spec_of(recipe)
    # of recordings of several lengths none is repeated, also where it has a single step
    own_steps = data.time_steps or (1 if data.time_first else None)
    known = {
        "in_channels": data.channels,
        "size": data.size,
        "classes": data.classes,
        "time_steps": own_steps,
    }
    filled = {
        name: value
        for name, value in known.items()
        if value is not None and has_argument(spec, name, field="model.name")
    }
    steps = spec.args.get("time_steps", own_steps)
    if own_steps is not None and steps != own_steps:
        raise InputError(
            f"{steps}, but {data.name} has time steps of its own",
            field="model.args.time_steps",
            hint="leave it out",
        )
    asked = spec.args.get("classes")
    if isinstance(asked, int) and data.classes is not None and asked < data.classes:
        raise InputError(f"{asked}, but the data have {data.classes}", field="model.args.classes")
    model = recipe.model.model_copy(update={"args": {**filled, **spec.args}})
    return recipe.model_copy(update={"model": model})


def spec_of(recipe: Recipe) -> ModelSpec:
    """The model that a recipe asks for."""
    return ModelSpec(name=recipe.model.name, args=recipe.model.args)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A network with its first weights, the data, and those who are told how it goes."""

    recipe: Recipe
    """With what the data filled in."""
    data: DataSet
    images: TrainingSplit
    """Those to train on, where the device is."""
    network: Network
    device: torch.device
    run: Run
    stop: StopSignal
    progress: Progress
    ranks: Ranks

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.images.steps(self.recipe.training.batch_size)

    def trainer(
        self,
        training: TrainingSection | None = None,
        *,
        objective: Objective | None = None,
        first_step: int = 0,
    ) -> Trainer:
        """A fresh optimizer over the network as it is now."""
        return Trainer(
            self.network,
            training or self.recipe.training,
            self.steps_per_epoch,
            objective=objective,
            first_step=first_step,
            ranks=self.ranks,
        )

    def make_span(self, *, epochs: int, key: tuple[object, ...] = (), name: str = "") -> TrainSpan:
        """`epochs` on the recipe's images; `key` tells its draws from those of other stretches."""
        recipe = self.recipe
        return TrainSpan(
            images=self.images,
            batch_size=recipe.training.batch_size,
            augment=Augmentation(
                crop=recipe.data.crop, flip=recipe.data.flip, cutout=recipe.data.cutout
            ),
            key=(recipe.seed, *key),
            epochs=epochs,
            device=self.device,
            name=name,
        )

    def accuracy(self) -> float | None:
        """On the validation images, in [0, 1]; None without them."""
        found = self.evaluate("validation")
        return found.accuracy if found else None

    def measure(self) -> Evaluation:
        """The network on the images that say most of it: test, else validation, else training."""
        found = self.evaluate(self.data.measured)
        assert found is not None
        return found

    def evaluate(self, split: str) -> Evaluation | None:
        """The network on the images of a split; None without them."""
        images = self.data.of(split)
        if images is None:
            return None
        batches = images.batches(self.recipe.training.batch_size, device=self.device)
        with self.seed_loader(split):
            return evaluate(self.network, batches, ranks=self.ranks, images=split)

    def calibrate(self, samples: int) -> Calibration:
        """Statistics over a seeded sample of the training images, as they are."""
        batches = self.calibration_batches(samples)
        with self.seed_loader("calibration"):
            return calibrate(self.network, batches, ranks=self.ranks)

    def calibration_batches(self, samples: int) -> Batches:
        """Training images without augmentation."""
        images: Split = self.images
        if isinstance(images, ImageSplit):
            images = images.sample(samples, self.recipe.seed)
        size = self.recipe.training.batch_size
        return images.batches(size, limit=samples, device=self.device)

    def seed_loader(self, what: str) -> AbstractContextManager[None]:
        """What a loader of the user's draws is the same in every pass, also in a run taken up."""
        return seed_draws(self.recipe.seed, what, device=self.device)

    def rebuild_with_args(self, **args: Any) -> TrainingSetup:
        """The same with another network: these arguments of its builder, the same weights.

        Raises:
            InputError: it is to have other time steps than the samples have themselves.
        """
        if "time_steps" in args and self.data.time_first:
            raise InputError(
                f"{self.data.name} has time steps of its own",
                field="imp.early_time_steps",
                hint="leave it out",
            )
        model = self.recipe.model.model_copy(update={"args": {**self.recipe.model.args, **args}})
        recipe = self.recipe.model_copy(update={"model": model})
        network = _build_network(recipe, self.images, self.device, self.network.forward)
        network = network.with_readout(self.network.readout)
        network.module.load_state_dict(self.module.state_dict())
        return replace(self, recipe=recipe, network=network)

    def list_buffers(self) -> set[str]:
        """The keys of what is no parameter: BatchNorm's running statistics above all."""
        return {name for name, _ in self.module.named_buffers()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put weights into the network."""
        self.module.load_state_dict(tensors)


def set_up(
    recipe: Recipe,
    data: DataSet,
    *,
    device: torch.device,
    run: Run | None = None,
    stop: StopSignal = NEVER,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> TrainingSetup:
    """Build and trace the recipe's network, and put its training images where they are used.

    Raises:
        InputError: the model cannot be had, or the data cannot be trained on.
    """
    recipe = resolve_recipe(recipe, data)
    images = _choose_training_images(data, recipe)
    here = images.on(device) if isinstance(images, ImageSplit) else images
    model = recipe.model
    forward = load_forward(model.forward, model.name, fields=("model.forward", "model.name"))
    forward = place_time_first(forward, model.forward, data, field="model.forward")
    network = _build_network(recipe, here, device, forward)
    reading = load_reading(model.readout, field="model.readout")
    return TrainingSetup(
        recipe=recipe,
        data=data,
        images=here,
        network=network.with_readout(Readout(reading, name=model.readout)),
        device=device,
        run=run or Unsaved(),
        stop=stop,
        progress=progress,
        ranks=ranks,
    )


def _choose_training_images(data: DataSet, recipe: Recipe) -> TrainingSplit:
    """The images to train on.

    Raises:
        InputError: they have no labels, or are too few for a batch.
    """
    images = data.train
    labelled = isinstance(images, LoaderSplit) or (
        isinstance(images, ImageSplit) and images.labels is not None
    )
    if not labelled:
        raise InputError(
            f"has no labelled {data.noun} to train on", file=recipe.data.name, field="data.name"
        )
    split = cast(TrainingSplit, images)
    if split.steps(recipe.training.batch_size) == 0:
        raise InputError(f"has too few {data.noun}", file=recipe.data.name, field="data.name")
    return split


def _build_network(
    recipe: Recipe, images: TrainingSplit, device: torch.device, forward: Forward
) -> Network:
    """The network of a resolved recipe with its first weights, on `device`."""
    spec = spec_of(recipe)
    with seed_draws(recipe.seed, "weights"):
        module = unwrap(build_model(spec, field="model")).to(device)
    x, y = next(iter(images.batches(2, limit=2, device=device)))
    Network(module=module, forward=forward).count_samples(x, y)  # refuses what does not fit it
    what = f"running {spec.name} on {describe_batch(x)}"
    told = explain_text_argument(spec.args, flag=flag_of("model.name"))
    with told, guard_user_code(what, field="model.name"):
        return trace(module, x, run=forward)
