"""Trainings one after the other, and the rounds of `imp`: their steps, and what outlives one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from snnprune.masks import Masks, apply_masks, count_kept, count_prunable
from snnprune.pruning.repair.batchnorm import recalibrate_batchnorm
from snnprune.recipe.sections import ImpSection
from snnprune.report.curves import DENSE
from snnprune.training import Round, list_rounds, load_method, split_returning
from snnprune.training.early_bird import (
    DRAWN,
    GROUP,
    WEIGHTS,
    EarlyBirdDetector,
    EarlyTickets,
)
from snnprune.training.fit import EpochResult, Hooks, Position, fit, resume_trainer
from snnprune.training.ranking import (
    DynamicSurgery,
    Ranking,
    copy_prunable_weights,
    load_ranking,
    make_dense_masks,
    make_full_masks,
)
from snnprune.training.runs import Groups
from snnprune.training.runs.state import State, read_count, require_alike, take_up
from snnprune.training.setup import TrainingSetup, spec_of
from snnprune.training.step import Trainer
from snnprune.training.tickets import make_ticket_row, require_epochs
from snnprune.training.weights import copy_to_cpu


class TrainingSequence:
    """The trainings of a run in order, the one at hand, and how far that is.

    What the rounds of `imp` and the sparsities of `search` share.
    """

    trainer: Trainer

    def __init__(self, setup: TrainingSetup, rounds: list[Round]) -> None:
        self.full = setup
        """With the network of the recipe, all its time steps."""
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
        # the dense training draws as `train` does
        key = () if round_.method == DENSE else self._key(round_)
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
        """Whether the training of a round is over early, after so many of its epochs."""
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


class ImpRun(TrainingSequence):
    """A run of `imp`: its trainings in order, the network at hand, the weights to go back to."""

    def __init__(self, setup: TrainingSetup) -> None:
        """Refuses what cannot be pruned, before anything is trained.

        Raises:
            InputError: a criterion or allocation cannot be had, or a weight not be pruned.
        """
        assert setup.recipe.imp is not None
        self.section: ImpSection = setup.recipe.imp
        super().__init__(setup, list_rounds(self.section, setup.recipe.training.epochs))
        copy_prunable_weights(setup.network)
        self.rankings = {
            method: _load_ranking(self.section, method) for method in self.section.methods
        }
        steps = self.section.early_time_steps
        self.early = setup if steps is None else setup.rebuild_with_args(time_steps=steps)
        """With the network of all rounds but the last, which may have fewer time steps."""
        self.setup = self.early
        self.trainer = self.early.trainer()
        self.dense: Mapping[str, Tensor] = {}
        self.early_weights: Mapping[str, Tensor] = copy_to_cpu(setup.module)
        """The first ones, until `_save` comes to the rewind epoch."""
        self.bird: EarlyBirdDetector | None = None
        self.tickets = self._make_tickets()
        self.returnable = 0  # weights that are not held back and were alive as the round began

    def resume(self) -> bool:
        """Put the run's last state back; False at the start of a new run."""
        state = self.full.run.begin()
        if state is None:
            return False
        with take_up(state):
            self._restore(state)
        return True

    def choose_masks(self, round_: Round) -> Masks:
        """The masks of a round, by the network that the one before left; none for the dense one."""
        if round_.round == 0:
            return {}
        if self.tickets:
            return self._take_drawn_masks(self.tickets)
        if round_.round == 1:  # of every method
            self.setup = self.early
            self.setup.load(self.dense)
            self.trainer = self.setup.trainer()
        return self._cut(round_)

    def rewind(self, round_: Round) -> None:
        """Go back to the early weights, or to the early learning rate alone."""
        trained = copy_to_cpu(self.setup.module)
        self._enter(round_)
        self.setup.load(trained)
        if round_.round > 0 and self.section.rewind == "weights":
            stay = set() if self.section.rewind_statistics else self.setup.list_buffers()
            early = {key: self.early_weights[key] for key in trained.keys() - stay}
            self.setup.load(trained | early)
        self.trainer = self._make_trainer(round_)

    def apply_masks_and_repair(self, round_: Round, masks: Masks) -> None:
        """Hold the masks from here on, and repair what the recipe wants repaired."""
        passing: Masks = {}
        if load_method(round_.method).returning:
            masks, passing = split_returning(self.setup.network, masks)
        self.trainer.hold(masks, passing)
        self.returnable = count_kept(passing)
        if round_.round > 0 and self.section.repair == "bn":
            with self.trainer.masking.apply_passing(), self.setup.seed_loader("repair"):
                batches = self.setup.calibration_batches(self.section.samples)
                recalibrate_batchnorm(self.setup.network, batches)

    def measure_and_keep(self, round_: Round) -> None:
        """Look at the test images, if there are some, once, and keep the network and its masks.

        A dense run that was ended early is no baseline: its network is kept and not measured.
        """
        run, masks = self.full.run, self.trainer.masking.copy_masks()
        epochs = [row for row in run.rows if row["kind"] == "epoch"]
        whole = round_.round > 0 or len(epochs) == round_.epochs
        with self.trainer.use_kept_weights():
            tensors = copy_to_cpu(self.setup.module)
            row = self._row(round_, masks, epochs[-1]["validation_accuracy"]) if whole else None
        if round_.round == 0:
            self.dense = tensors
        # with fewer time steps it is another network: that which was trained and measured
        other = None if self.setup is self.full else spec_of(self.setup.recipe).as_metadata()
        run.keep(round_.folder, apply_masks(tensors, masks), masks, other)
        if row is not None:
            run.log(row)

    def _row(
        self, round_: Round, masks: Masks, validation_accuracy: float | None
    ) -> Mapping[str, object]:
        """As before, with when its ticket was drawn."""
        row = super()._row(round_, masks, validation_accuracy)
        if self.tickets is None or round_.round == 0:
            return row
        return {**row, "early_bird": self.tickets.drawn[self.number].about}

    def _make_tickets(self) -> EarlyTickets | None:
        """Those that are drawn while the dense network trains, if the recipe wants it so."""
        if self.section.early_bird is None or not self.section.drawn_while_dense:
            return None
        cuts = {
            number: functools.partial(self._cut, round_)
            for number, round_ in enumerate(self.rounds)
            if round_.round > 0
        }
        stay = self.section.rewind == "learning-rate"
        return EarlyTickets(
            self.section.early_bird, cuts, lambda: copy_to_cpu(self.setup.module) if stay else {}
        )

    def _take_drawn_masks(self, tickets: EarlyTickets) -> Masks:
        """The masks of the ticket at hand, the network being what it was drawn from."""
        drawn = tickets.drawn[self.number]
        self.setup = self.early
        self.setup.load(drawn.weights or self.dense)
        return drawn.masks

    def _enter(self, round_: Round) -> None:
        """Take the network that `round_` trains, and who may end it early."""
        self.setup = self.full if round_.last else self.early
        self.bird = None
        # the dense run is what all are compared with, the last round what is kept
        if self.section.early_bird is not None and round_.round > 0 and not round_.last:
            following = self.rounds[self.number + 1]
            self.bird = EarlyBirdDetector(self.section.early_bird, lambda: self._cut(following))

    def _make_trainer(self, round_: Round) -> Trainer:
        if round_.round == 0:
            return self.setup.trainer()
        if self.section.rewind == "learning-rate":  # the schedule of the dense run goes on at R
            first = self.section.rewind_epoch * self.full.steps_per_epoch
            return self.setup.trainer(first_step=first)
        # the same schedule, restarted and as long as the round
        training = self.full.recipe.training.model_copy(update={"epochs": round_.epochs})
        return self.setup.trainer(training)

    def _cut(self, round_: Round) -> Masks:
        """Masks for `round_` of the network as trained; weights that may return are all ranked."""
        ranking, masking = self.rankings[round_.method], self.trainer.masking
        with self.trainer.average.use_averages():
            weights = copy_prunable_weights(self.setup.network)
            alive = {
                **make_full_masks(weights),
                **{key: mask.cpu() for key, mask in masking.held.items()},
            }
            with masking.apply_passing():
                return ranking.cut(self.setup, round_.sparsity, weights=weights, alive=alive).masks

    def _hooks(self, round_: Round) -> Hooks:
        hooks = super()._hooks(round_)
        if self.section.surgery != "dns" or not load_method(round_.method).returning:
            return hooks
        key = (self.full.recipe.seed, round_.round)
        return replace(hooks, after_step=DynamicSurgery(self.trainer, self.returnable, key))

    def _key(self, round_: Round) -> tuple[object, ...]:
        return ("round", round_.round)

    def _ends(self, round_: Round, epochs: int) -> bool:
        if round_.round == 0 and self.tickets:
            complete = self.tickets.look(epochs, last=epochs == round_.epochs)
            return complete and epochs > self.section.rewind_epoch  # whose weights are wanted
        return self.bird is not None and self.bird.look()

    def _save(self, at: Position) -> None:
        """Save the state; at the rewind epoch of round 0 its weights are those to go back to."""
        if self.number == 0 and (at.epoch, at.step) == (self.section.rewind_epoch, 0):
            self.early_weights = copy_to_cpu(self.setup.module)
        super()._save(at)

    def _position(self) -> dict[str, Any]:
        drawn = {"early_bird": self.tickets.position()} if self.tickets else {}
        return {"returnable": self.returnable, **drawn}

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        return {
            "dense": self.dense,
            "early": self.early_weights,
            **(self.bird.groups() if self.bird else {}),
            **(self.tickets.groups() if self.tickets else {}),
        }

    def _restore(self, state: State) -> None:
        known, groups = state.position, state.groups
        self.number = read_count(known, "cell", most=len(self.rounds) - 1)
        round_ = self.rounds[self.number]
        self._enter(round_)
        self.trainer = self._make_trainer(round_)
        self.at = resume_trainer(self.trainer, known, groups, epochs=round_.epochs)
        require_epochs(self.full.run.rows, self.at, round_)
        self.returnable = read_count(
            known, "returnable", most=count_prunable(self.trainer.masking.passing)
        )
        self.dense, self.early_weights = groups.get("dense", {}), groups["early"]
        whole = self.setup.module.state_dict()
        require_alike(self.early_weights, whole)
        require_alike(self.dense, whole if self.number else {})
        _require_drawn(groups, make_full_masks(copy_prunable_weights(self.setup.network)), whole)
        if self.bird:
            self.bird.restore(groups)
        if self.tickets:
            self.tickets.restore(known["early_bird"], groups)


def _require_drawn(groups: Groups, masks: Masks, weights: Mapping[str, Tensor]) -> None:
    """Refuse early tickets, and masks that wait for them, with others than these."""
    for name, tensors in groups.items():
        if name.startswith(f"{WEIGHTS}-"):
            require_alike(tensors, weights)
        elif name.startswith((f"{GROUP}-", f"{DRAWN}-")):
            require_alike(tensors, masks)


def _load_ranking(section: ImpSection, method: str) -> Ranking:
    """How the rounds of a method rank."""
    return load_ranking(
        load_method(method).criterion,
        section.allocation,
        samples=section.samples,
        field="imp.methods",
    )
