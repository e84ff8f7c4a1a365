"""Training a network from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from snnprune.data import DataSet
from snnprune.data.augmentation import Augmentation
from snnprune.evaluation import Evaluation, evaluate
from snnprune.loops.setup import initial_network, resolved, training_images
from snnprune.network import Network
from snnprune.progress import SILENT, Progress
from snnprune.recipe import Recipe
from snnprune.runs import NEVER, Run, Stop, Unsaved, taking_up
from snnprune.training import Best, Trainer, drawing, require_finite


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to; accuracies in [0, 1], loss in nats."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is, with sums over the batches of the epoch under way."""

    epoch: int = 0
    step: int = 0
    """Batches of this epoch that are done."""
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0

    def after(self, loss: float, correct: int, samples: int) -> Position:
        """One batch later, which had this mean loss."""
        return replace(
            self,
            step=self.step + 1,
            loss_sum=self.loss_sum + loss * samples,
            correct=self.correct + correct,
            seen=self.seen + samples,
        )

    @property
    def train_loss(self) -> float:
        """Mean of the epoch so far, in nats, each batch as it was met."""
        return self.loss_sum / self.seen

    @property
    def train_accuracy(self) -> float:
        """Of the epoch so far, each batch as it was met."""
        return self.correct / self.seen


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network and how it got there."""

    recipe: Recipe
    """With what the data filled in."""
    network: Network
    best: Mapping[str, Tensor]
    """The weights of the best epoch; empty without validation data."""
    best_epoch: int | None
    epochs: tuple[Epoch, ...]
    test: Evaluation | None


def train(
    recipe: Recipe,
    data: DataSet,
    *,
    device: torch.device,
    run: Run | None = None,
    stop: Stop = NEVER,
    progress: Progress = SILENT,
) -> Trained:
    """Train what `recipe` asks for; the test images are looked at once, at the end.

    On a CPU the same recipe gives the same weights, bit for bit, also when the run was stopped
    and taken up again on the way.

    Raises:
        InputError: the model cannot be had, or the data cannot be trained on.
        NonFiniteError: the loss became NaN or infinite; the last state of `run` is a good one.
        StoppedError: `stop` became true, and the state was saved.
    """
    recipe = resolved(recipe, data)
    batch_size, epochs = recipe.training.batch_size, recipe.training.epochs
    images = training_images(data, recipe).on(device)
    network = initial_network(recipe, images, device)
    trainer = Trainer(network, recipe.training, images.steps(batch_size))
    best, run = Best(), run or Unsaved()
    at = _taken_up(run, trainer, best)

    for epoch in range(at.epoch, epochs):
        network.module.train()
        batches = images.shuffled(
            batch_size,
            key=(recipe.seed, epoch),
            device=device,
            augment=Augmentation(crop=recipe.data.crop, flip=recipe.data.flip),
            start=at.step,
        )
        left = trainer.steps_per_epoch - at.step
        for x, y in progress.track(batches, label=f"epoch {epoch + 1}/{epochs}", total=left):
            assert y is not None
            with drawing(recipe.seed, epoch, "network", at.step, device=device):
                loss, correct = trainer.train_on(x, y)
            at = at.after(loss, correct, len(x))
            progress.note(f"loss {at.train_loss:.3f}, accuracy {at.train_accuracy:.1%}")
            if stop:
                break
        require_finite(network.module, epoch)
        where = f"in epoch {epoch + 1} after step {at.step} of {trainer.steps_per_epoch}"
        if not stop:
            held_out = _evaluate(network, data, "validation", batch_size, device)
            found = _epoch(at, held_out, trainer)
            best.offer(found.validation_accuracy, epoch, network.module)
            run.log(asdict(found))
            at = Position(epoch=epoch + 1)
        _save(run, at, trainer, best)
        if stop and at.epoch < epochs:
            raise stop.error(where)

    return Trained(
        recipe=recipe,
        network=network,
        best=best.tensors,
        best_epoch=best.epoch,
        epochs=tuple(Epoch(**row) for row in run.rows),
        test=_evaluate(network, data, "test", batch_size, device),
    )


def _taken_up(run: Run, trainer: Trainer, best: Best) -> Position:
    """Where `run` goes on, its state put back; the beginning of a new one."""
    state = run.begin()
    if state is None:
        return Position()
    with taking_up(state):
        known = state.position
        trainer.restore(known["trainer"], state.groups)
        best.restore(known["best"], state.groups.get("best", {}))
        return Position(**known["at"])


def _save(run: Run, at: Position, trainer: Trainer, best: Best) -> None:
    run.save(
        at.epoch * trainer.steps_per_epoch + at.step,
        {"at": asdict(at), "trainer": trainer.position(), "best": best.position()},
        {**trainer.groups(), "best": best.tensors},
    )


def _epoch(at: Position, held_out: Evaluation | None, trainer: Trainer) -> Epoch:
    return Epoch(
        epoch=at.epoch,
        train_loss=at.train_loss,
        train_accuracy=at.train_accuracy,
        validation_accuracy=held_out.accuracy if held_out else None,
        learning_rate=trainer.learning_rate,
    )


def _evaluate(
    network: Network, data: DataSet, split: str, batch_size: int, device: torch.device
) -> Evaluation | None:
    images = getattr(data, split)
    if images is None:
        return None
    return evaluate(network, images.batches(batch_size, device=device))
