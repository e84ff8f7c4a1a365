"""Training a network from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from snnprune.data import DataSet
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.graph.network import Network
from snnprune.masks import Masks, apply_masks, count_prunable, count_pruned
from snnprune.measure.evaluation import Evaluation
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import DENSE
from snnprune.runtime import SILENT, Progress
from snnprune.training import FINETUNED, GRADUAL
from snnprune.training.fit import EpochResult, Hooks, Position, fit, resume_trainer
from snnprune.training.optimization import Objective
from snnprune.training.ranking import GradualPruning, make_dense_masks
from snnprune.training.runs import NEVER, Run, StopSignal
from snnprune.training.runs.state import take_up
from snnprune.training.setup import TrainingSetup, set_up
from snnprune.training.step import Trainer
from snnprune.training.tickets import make_ticket_row, require_epochs
from snnprune.training.weights import BestWeights, copy_to_cpu


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network and how it got there."""

    recipe: Recipe
    """With what the data filled in."""
    network: Network
    tensors: Mapping[str, Tensor]
    """The weights of the last epoch, as they are to be kept: averaged where the recipe says so."""
    masks: Masks
    """What was held while training; empty where nothing is pruned."""
    best: Mapping[str, Tensor]
    """The weights of the best epoch; empty without validation data."""
    best_epoch: int | None
    epochs: tuple[EpochResult, ...]
    test: Evaluation | None


def train(
    recipe: Recipe,
    data: DataSet,
    *,
    device: torch.device,
    run: Run | None = None,
    stop: StopSignal = NEVER,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> TrainedNetwork:
    """Train what `recipe` asks for, pruning on the way where it has a section `gradual`.

    The test images are looked at once, at the end. On a CPU the same recipe gives the same
    weights, bit for bit, also when the run was stopped and taken up again on the way.

    Raises:
        InputError: the model cannot be had, or the data cannot be trained on.
        NonFiniteError: the loss became NaN or infinite; the last state of `run` is a good one.
        StoppedError: `stop` became true, and the state was saved.
    """
    return train_network(
        set_up(recipe, data, device=device, run=run, stop=stop, progress=progress, ranks=ranks)
    )


def train_network(
    setup: TrainingSetup, *, masks: Masks | None = None, objective: Objective | None = None
) -> TrainedNetwork:
    """Train the network of `setup` for the recipe's epochs, `masks` held throughout."""
    recipe, run, best = setup.recipe, setup.run, BestWeights()
    trainer = setup.trainer(objective=objective)
    trainer.hold(masks or {})
    gradual = GradualPruning(recipe.gradual, setup, trainer) if recipe.gradual else None
    epochs, steps = recipe.training.epochs, setup.steps_per_epoch
    at = _resume_training(run, trainer, best, epochs)

    def after_epoch(epoch: EpochResult) -> bool:
        if gradual is None or gradual.done:
            with trainer.use_kept_weights():
                best.keep_if_better(epoch.validation_accuracy, epoch.epoch, trainer.module)
        run.log({"kind": "epoch", **asdict(epoch)})
        return False

    def save(at: Position) -> None:
        run.save(
            at.epoch * steps + at.step,
            {"at": asdict(at), "trainer": trainer.position(), "best": best.position()},
            {**trainer.groups(), "best": best.tensors},
        )

    hooks = Hooks(held_out=setup.accuracy, save=save, after_epoch=after_epoch)
    if gradual:
        hooks = replace(hooks, after_step=gradual)
    with setup.progress.within("run", total=epochs * steps, done=at.epoch * steps + at.step):
        span = setup.make_span(epochs=epochs)
        fit(trainer, span, hooks, at=at, stop=setup.stop, progress=setup.progress)
    with trainer.use_kept_weights():
        return _measure_result(setup, trainer, best)


def _resume_training(run: Run, trainer: Trainer, best: BestWeights, epochs: int) -> Position:
    """Where `run` goes on, its state put back; the beginning of a new one."""
    state = run.begin()
    if state is None:
        return Position()
    with take_up(state):
        known = state.position
        at = resume_trainer(trainer, known, state.groups, epochs=epochs)
        require_epochs(run.rows, at)
        found = state.groups.get("best", {})
        best.restore(known["best"], found, module=trainer.module, epochs=at.epoch)
        return at


def _measure_result(setup: TrainingSetup, trainer: Trainer, best: BestWeights) -> TrainedNetwork:
    """The trained network, its test images looked at once and told of in the metrics."""
    rows = [{k: v for k, v in row.items() if k != "kind"} for row in setup.run.rows]
    epochs = tuple(EpochResult(**row) for row in rows)
    measured, masks = setup.measure(), trainer.masking.copy_masks()
    held, gradual = masks or make_dense_masks(setup.network), setup.recipe.gradual
    row = make_ticket_row(
        setup,
        held,
        method=GRADUAL if gradual else FINETUNED if masks else DENSE,
        asked=gradual.sparsity if gradual else count_pruned(held) / count_prunable(held),
        validation_accuracy=epochs[-1].validation_accuracy,
        measured=measured,
    )
    setup.run.log(row)
    return TrainedNetwork(
        recipe=setup.recipe,
        network=setup.network,
        tensors=apply_masks(copy_to_cpu(trainer.module), masks),
        masks=masks,
        best=apply_masks(best.tensors, masks),
        best_epoch=best.epoch,
        epochs=epochs,
        test=measured if measured.images == "test" else None,
    )
