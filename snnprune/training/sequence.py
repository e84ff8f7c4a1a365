"""Trainings one after the other: what the rounds of `imp` and the sparsities of `search` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from snnprune.masks import Masks
from snnprune.report.curves import DENSE
from snnprune.training.fit import EpochResult, Hooks, Position, fit
from snnprune.training.methods import Round
from snnprune.training.ranking import make_dense_masks
from snnprune.training.setup import TrainingSetup
from snnprune.training.step import Trainer
from snnprune.training.tickets import make_ticket_row


class TrainingSequence:
    """The trainings of a run in order, the one at hand, and how far that is."""

    trainer: Trainer

    def __init__(self, setup: TrainingSetup, rounds: list[Round]) -> None:
        self.full = setup
        self.setup = setup
        """With the network that is trained now."""
        self.rounds = rounds
        self.number = 0
        self.at = Position()

    @property
    def steps(self) -> int:
        """Batches of the whole run, as far as no training ends early."""
        return self._steps_before(len(self.rounds))

    @property
    def steps_done(self) -> int:
        """Batches up to where it is."""
        return self._steps_before(self.number) + self._steps_of(self.at)

    def iter_left(self) -> Iterator[Round]:
        """The trainings from the one at hand on."""
        while self.number < len(self.rounds):
            yield self.rounds[self.number]
            self.number, self.at = self.number + 1, Position()

    def train(self, round_: Round) -> None:
        """Train from where it is to the end of `round_`, saving on the way."""
        key = (
            () if round_.method == DENSE else self._key(round_)
        )  # the dense one is that of `train`
        span = self.setup.make_span(epochs=round_.epochs, key=key, name=round_.label)
        stop, progress = self.full.stop, self.full.progress
        total = round_.epochs * self.full.steps_per_epoch
        with progress.within(round_.label, total=total, done=self._steps_of(self.at)):
            hooks = self._hooks(round_)
            fit(self.trainer, span, hooks, at=self.at, stop=stop, progress=progress)

    def _key(self, round_: Round) -> tuple[object, ...]:
        """What tells the draws of a training from those of the dense one."""
        raise NotImplementedError

    def _ends(self, _: Round, __: int) -> bool:
        """Whether the training of a cell is over early, after so many of its epochs."""
        return False

    def _position(self) -> dict[str, Any]:
        """What a state says beside where it is and what its trainer says."""
        return {}

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state beside those of its trainer."""
        raise NotImplementedError

    def _row(
        self, round_: Round, masks: Masks, validation_accuracy: float | None
    ) -> Mapping[str, object]:
        """What metrics tell of the network that `round_` trained, measured now."""
        return make_ticket_row(
            self.setup,
            masks or make_dense_masks(self.setup.network),
            method=round_.method,
            round=round_.round,
            asked=round_.sparsity,
            validation_accuracy=validation_accuracy,
            measured=self.setup.measure(),
        )

    def _hooks(self, round_: Round) -> Hooks:
        def after_epoch(epoch: EpochResult) -> bool:
            row = {"kind": "epoch", "method": round_.method, "round": round_.round}
            self.full.run.log({**row, **asdict(epoch)})
            return self._ends(round_, epoch.epoch + 1)

        return Hooks(held_out=self.setup.accuracy, save=self._save, after_epoch=after_epoch)

    def _save(self, at: Position) -> None:
        self.at = at
        position = {
            "cell": self.number,
            "at": asdict(at),
            "trainer": self.trainer.position(),
            **self._position(),
        }
        groups = {**self.trainer.groups(), **self._groups()}
        self.full.run.save(self.steps_done, position, groups)

    def _steps_before(self, number: int) -> int:
        epochs = sum(round_.epochs for round_ in self.rounds[:number])
        return epochs * self.full.steps_per_epoch

    def _steps_of(self, at: Position) -> int:
        return at.epoch * self.full.steps_per_epoch + at.step
