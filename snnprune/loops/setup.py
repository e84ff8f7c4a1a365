"""What a loop works with: a network with its first weights, data, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from snnprune.batches import Batches, described
from snnprune.calibration import Calibration, calibrate
from snnprune.data import DataSet, Split, TrainingSplit
from snnprune.data.augmentation import Augmentation
from snnprune.data.images import ImageSplit
from snnprune.data.loader import LoaderSplit
from snnprune.distributed import ALONE, Ranks
from snnprune.errors import InputError
from snnprune.evaluation import Evaluation, evaluate
from snnprune.loops.resolving import resolved, spec_of
from snnprune.models import build_model
from snnprune.network import Network, bare, trace
from snnprune.network.readout import Readout
from snnprune.network.running import Forward, forward_of, reading_of
from snnprune.progress import SILENT, Progress
from snnprune.randomness import drawing
from snnprune.recipe import Recipe, TrainingSection
from snnprune.references import flag_of, telling_of_text
from snnprune.runs import NEVER, Run, Stop, Unsaved
from snnprune.training import Objective, Stretch, Trainer
from snnprune.user_code import calling_user_code


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A network with its first weights, the data, and those who are told how it goes."""

    recipe: Recipe
    """With what the data filled in."""
    data: DataSet
    images: TrainingSplit
    """Those to train on, where the device is."""
    network: Network
    device: torch.device
    run: Run
    stop: Stop
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

    def stretch(self, *, epochs: int, key: tuple[object, ...] = (), name: str = "") -> Stretch:
        """`epochs` on the recipe's images; `key` tells its draws from those of other stretches."""
        recipe = self.recipe
        return Stretch(
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
        with self.seeded(split):
            return evaluate(self.network, batches, ranks=self.ranks, images=split)

    def calibrate(self, samples: int) -> Calibration:
        """Statistics over a seeded sample of the training images, as they are."""
        batches = self.calibration_batches(samples)
        with self.seeded("calibration"):
            return calibrate(self.network, batches, ranks=self.ranks)

    def calibration_batches(self, samples: int) -> Batches:
        """Training images without augmentation."""
        images: Split = self.images
        if isinstance(images, ImageSplit):
            images = images.sample(samples, self.recipe.seed)
        size = self.recipe.training.batch_size
        return images.batches(size, limit=samples, device=self.device)

    def seeded(self, what: str) -> AbstractContextManager[None]:
        """What a loader of the user's draws is the same in every pass, also in a run taken up."""
        return drawing(self.recipe.seed, what, device=self.device)

    def with_args(self, **args: Any) -> Setup:
        """The same with another network: these arguments of its builder, the same weights."""
        model = self.recipe.model.model_copy(update={"args": {**self.recipe.model.args, **args}})
        recipe = self.recipe.model_copy(update={"model": model})
        network = _network(recipe, self.images, self.device, self.network.forward)
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
    stop: Stop = NEVER,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> Setup:
    """Build and trace the recipe's network, and put its training images where they are used.

    Raises:
        InputError: the model cannot be had, or the data cannot be trained on.
    """
    recipe = resolved(recipe, data)
    images = _training_images(data, recipe)
    here = images.on(device) if isinstance(images, ImageSplit) else images
    model = recipe.model
    forward = forward_of(model.forward, model.name, fields=("model.forward", "model.name"))
    network = _network(recipe, here, device, forward)
    reading = reading_of(model.readout, field="model.readout")
    return Setup(
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


def _training_images(data: DataSet, recipe: Recipe) -> TrainingSplit:
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
            "has no labelled images to train on", file=recipe.data.name, field="data.name"
        )
    split = cast(TrainingSplit, images)
    if split.steps(recipe.training.batch_size) == 0:
        raise InputError("has too few images", file=recipe.data.name, field="data.name")
    return split


def _network(
    recipe: Recipe, images: TrainingSplit, device: torch.device, forward: Forward
) -> Network:
    """The network of a resolved recipe with its first weights, on `device`."""
    spec = spec_of(recipe)
    with drawing(recipe.seed, "weights"):
        module = bare(build_model(spec, field="model")).to(device)
    x, y = next(iter(images.batches(2, limit=2, device=device)))
    Network(module=module, forward=forward).count_samples(x, y)  # refuses what does not fit it
    what = f"running {spec.name} on {described(x)}"
    told = telling_of_text(spec.args, flag=flag_of("model.name"))
    with told, calling_user_code(what, field="model.name"):
        return trace(module, x, run=forward)
