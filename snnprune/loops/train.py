"""Training a network from a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.augmentation import Augmentation
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.evaluation import Evaluation, evaluate
from snnprune.models import ModelSpec, accepts, build_model
from snnprune.network import Network, trace
from snnprune.progress import SILENT, Progress
from snnprune.provenance import DataSpec
from snnprune.randomness import derived_seed
from snnprune.recipe import Recipe
from snnprune.training import Trainer, require_finite
from snnprune.user_code import calling_user_code


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to; accuracies in [0, 1], loss in nats."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network and how it got there."""

    network: Network
    spec: ModelSpec
    data: DataSpec
    epochs: tuple[Epoch, ...]
    test: Evaluation | None


def train(
    recipe: Recipe,
    *,
    device: torch.device,
    data_options: DataOptions | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train what `recipe` asks for; the test images are looked at once, at the end.

    On a CPU the same recipe gives the same weights, bit for bit.

    Raises:
        InputError: the model or the data cannot be had.
        NonFiniteError: the loss became NaN or infinite.
    """
    data = _open(recipe, data_options or DataOptions())
    images = _training_images(data, recipe).on(device)
    spec = _fitted(ModelSpec(name=recipe.model.name, args=recipe.model.args), data)
    module = _initialised(spec, recipe.seed).to(device)
    batch_size = recipe.training.batch_size
    network = _traced(module, next(images.batches(2, device=device))[0], recipe)
    trainer = Trainer(network, recipe.training, images.steps(batch_size))
    epochs = []

    for epoch in range(recipe.training.epochs):
        module.train()
        batches = images.shuffled(
            batch_size,
            key=(recipe.seed, epoch),
            device=device,
            augment=Augmentation(crop=recipe.data.crop, flip=recipe.data.flip),
        )
        label = f"epoch {epoch + 1}/{recipe.training.epochs}"
        watched = progress.track(batches, label=label, total=trainer.steps_per_epoch)
        loss, accuracy = _train_epoch(trainer, watched, progress)
        require_finite(module, epoch)
        held_out = _evaluate(network, data, "validation", batch_size, device)
        epochs.append(
            Epoch(
                epoch=epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                validation_accuracy=held_out.accuracy if held_out else None,
                learning_rate=trainer.optimizer.param_groups[0]["lr"],
            )
        )

    return Trained(
        network=network,
        spec=spec,
        data=DataSpec(name=recipe.data.name, validation=recipe.data.validation, seed=recipe.seed),
        epochs=tuple(epochs),
        test=_evaluate(network, data, "test", batch_size, device),
    )


def _open(recipe: Recipe, options: DataOptions) -> DataSet:
    split = DataOptions(
        root=options.root,
        download=options.download,
        validation=recipe.data.validation,
        seed=recipe.seed,
        size=recipe.model.args.get("size"),
        channels=recipe.model.args.get("in_channels"),
    )
    return open_data(recipe.data.name, options=split, field="data.name")


def _training_images(data: DataSet, recipe: Recipe) -> ImageSplit:
    images = data.train
    if not isinstance(images, ImageSplit) or images.labels is None:
        raise InputError(
            "has no labelled images to train on", file=recipe.data.name, field="data.name"
        )
    if images.steps(recipe.training.batch_size) == 0:
        raise InputError("has too few images", file=recipe.data.name, field="data.name")
    return images


def _fitted(spec: ModelSpec, data: DataSet) -> ModelSpec:
    """`spec` with what the data say about channels, size and classes, where it is silent."""
    known = {"in_channels": data.channels, "size": data.size, "classes": data.classes}
    filled = {
        name: value
        for name, value in known.items()
        if value is not None and accepts(spec, name, field="model.name")
    }
    asked = spec.args.get("classes")
    if isinstance(asked, int) and data.classes is not None and asked < data.classes:
        raise InputError(f"{asked}, but the data have {data.classes}", field="model.args.classes")
    return ModelSpec(name=spec.name, args={**filled, **spec.args})


def _initialised(spec: ModelSpec, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "weights"))
        return build_model(spec, field="model")


def _traced(module: nn.Module, example: Tensor, recipe: Recipe) -> Network:
    what = f"running {recipe.model.name} on a batch of shape {tuple(example.shape)}"
    with calling_user_code(what, field="model.name"):
        return trace(module, example)


def _train_epoch(
    trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor | None]], progress: Progress
) -> tuple[float, float]:
    """Mean loss in nats and accuracy over the epoch's batches, as they were met."""
    loss_sum, correct, seen = 0.0, 0, 0
    for x, y in batches:
        assert y is not None
        loss, right = trainer.train_on(x, y)
        loss_sum, correct, seen = loss_sum + loss * len(x), correct + right, seen + len(x)
        progress.note(f"loss {loss_sum / seen:.3f}, accuracy {correct / seen:.1%}")
    return loss_sum / seen, correct / seen


def _evaluate(
    network: Network, data: DataSet, split: str, batch_size: int, device: torch.device
) -> Evaluation | None:
    images = getattr(data, split)
    if images is None:
        return None
    return evaluate(network, images.batches(batch_size, device=device))
