"""Epochs of training that can be stopped after any batch and taken up again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from snnprune.data import Augmentation, TrainingSplit
from snnprune.errors import InputError, NonFiniteError
from snnprune.measure import Natural, Share
from snnprune.runtime import SILENT, Progress, seed_draws
from snnprune.training.runs import NEVER, Groups, StopSignal
from snnprune.training.runs.state import read_count, read_number, require_names
from snnprune.training.step import Trainer, require_finite


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a stretch is, with sums over the batches of the epoch under way."""

    epoch: int = 0
    step: int = 0
    """Batches of this epoch that are done."""
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    skipped: int = 0
    """Batches whose gradient overflowed in fp16."""

    @classmethod
    def from_state(cls, known: Mapping[str, Any], *, epochs: int, steps: int) -> Position:
        """That of a state, for a stretch of so many epochs of so many batches.

        Raises:
            LookupError, TypeError, ValueError: it is not one of these.
        """
        require_names(known, [field.name for field in fields(cls)])
        at = cls(
            epoch=read_count(known, "epoch", most=epochs),
            step=read_count(known, "step", most=steps),
            loss_sum=read_number(known, "loss_sum"),
            correct=read_count(known, "correct"),
            seen=read_count(known, "seen", most=2**53),  # samples; what follows are floats
            skipped=read_count(known, "skipped", most=steps),
        )
        # `correct` is of all samples that were seen, and each batch has some
        if at.correct > at.seen or (at.step == 0) != (at.seen == 0):
            raise ValueError(f"{at.correct} of {at.seen} samples right after {at.step} batches")
        if at.epoch == epochs and at.step:
            raise ValueError(f"{at.step} batches after the last epoch")
        return at

    def after(self, loss: float, correct: int, samples: int, *, skipped: bool) -> Position:
        """One batch later, which had this mean loss; `skipped`: no step was taken with it."""
        return replace(
            self,
            step=self.step + 1,
            loss_sum=self.loss_sum + loss * samples,
            correct=self.correct + correct,
            seen=self.seen + samples,
            skipped=self.skipped + skipped,
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
class EpochResult:
    """What one epoch came to; accuracies in [0, 1], loss in nats."""

    epoch: Natural
    train_loss: float
    train_accuracy: Share
    validation_accuracy: Share | None
    learning_rate: float
    skipped: Natural = 0
    """Batches whose gradient overflowed in fp16, so that no step was taken with them."""


@dataclass(frozen=True, kw_only=True)
class TrainSpan:
    """What is trained on and how long; every draw depends on `key`."""

    images: TrainingSplit
    batch_size: int
    augment: Augmentation
    key: tuple[object, ...]
    epochs: int
    device: torch.device
    name: str = ""
    """What it is called where several make a run, as `sf-imp-1 90.0%`."""


def resume_trainer(
    trainer: Trainer, known: Mapping[str, Any], groups: Groups, *, epochs: int
) -> Position:
    """Put back into a fresh trainer what a loop saved; where its stretch of `epochs` goes on.

    Raises:
        AttributeError, LookupError, RuntimeError, TypeError, ValueError: it is not of this network,
            or cannot be so.
    """
    at = Position.from_state(known["at"], epochs=epochs, steps=trainer.steps_per_epoch)
    trainer.restore(known["trainer"], groups)
    for key in trainer.masking.copy_masks().keys() - trainer.network.layers.keys():
        raise ValueError(f"{key} is no weight of a layer, and has a mask")
    if trainer.batches > at.epoch * trainer.steps_per_epoch + at.step:
        raise ValueError(f"{trainer.batches:,} batches are more than lie before where it is")
    return at


def _do_nothing() -> None:
    pass


def _never_stop(_: EpochResult) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a loop does while it trains."""

    held_out: Callable[[], float | None]
    """The validation accuracy of the weights as they are kept."""
    save: Callable[[Position], None]
    """Keep a state, after each epoch and when stopped."""
    after_step: Callable[[], None] = _do_nothing
    after_epoch: Callable[[EpochResult], bool] = _never_stop
    """May end the stretch, by True."""


def fit(
    trainer: Trainer,
    span: TrainSpan,
    hooks: Hooks,
    *,
    at: Position,
    stop: StopSignal = NEVER,
    progress: Progress = SILENT,
) -> None:
    """Train from `at` to the end of the stretch.

    Raises:
        NonFiniteError: the loss, or a weight after an epoch, is NaN or infinite, or no step could
            be taken.
        StoppedError: `stop` became true; the position is saved.
    """
    while at.epoch < span.epochs:
        at = _train_epoch(trainer, span, hooks, at, stop, progress)
        require_finite(trainer.module, at.epoch)
        if at.epoch + 1 == span.epochs:
            trainer.require_stepped()
        place = _format_position(span, at, trainer)
        if not stop:
            with trainer.use_kept_weights():
                held_out = hooks.held_out()
            ended = hooks.after_epoch(_make_epoch(at, held_out, trainer))
            at = Position(epoch=span.epochs if ended else at.epoch + 1)
        hooks.save(at)
        if stop and at.epoch < span.epochs:
            raise stop.error(place)


def _train_epoch(
    trainer: Trainer,
    span: TrainSpan,
    hooks: Hooks,
    at: Position,
    stop: StopSignal,
    progress: Progress,
) -> Position:
    """The rest of an epoch, or as much of it as comes before a stop."""
    trainer.module.train()
    batches = span.images.shuffle(
        span.batch_size,
        key=(*span.key, at.epoch),
        device=span.device,
        augment=span.augment,
        start=at.step,
    )
    label = f"epoch {at.epoch + 1}/{span.epochs}"
    start, before = time.monotonic(), at.seen
    for x, y in progress.track(batches, label=label, total=trainer.steps_per_epoch - at.step):
        if y is None:
            raise InputError("has no labels to train on", field="data.name")
        # what a network draws differs between ranks, which have different samples
        own = (trainer.ranks.rank,) if trainer.ranks.size > 1 else ()
        steps = trainer.step
        with (
            _locate_errors(span, at, trainer),
            seed_draws(*span.key, at.epoch, "network", at.step, *own, device=span.device),
        ):
            loss, correct = trainer.train_on(x, y)
        hooks.after_step()
        at = at.after(loss, correct, len(y), skipped=trainer.step == steps)
        rate = (at.seen - before) / max(time.monotonic() - start, 1e-9)
        progress.note(
            f"loss {at.train_loss:.3f}, accuracy {at.train_accuracy:.1%}, {rate:,.0f} samples/s"
        )
        if stop:
            break
    return at


@contextlib.contextmanager
def _locate_errors(span: TrainSpan, at: Position, trainer: Trainer) -> Iterator[None]:
    """What is not finite is told with the epoch and the batch that it was met in."""
    try:
        yield
    except NonFiniteError as error:
        error.message += f", {_format_position(span, at, trainer)}"
        raise


def _format_position(span: TrainSpan, at: Position, trainer: Trainer) -> str:
    name = f"{span.name}, " if span.name else ""
    return f"in {name}epoch {at.epoch + 1} after step {at.step} of {trainer.steps_per_epoch}"


def _make_epoch(at: Position, held_out: float | None, trainer: Trainer) -> EpochResult:
    return EpochResult(
        epoch=at.epoch,
        train_loss=at.train_loss,
        train_accuracy=at.train_accuracy,
        validation_accuracy=held_out,
        learning_rate=trainer.learning_rate,
        skipped=at.skipped,
    )
