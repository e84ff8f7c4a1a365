"""Training a network from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from snnprune.data.dataset import DataSet
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.graph.network import Network
from snnprune.masks import Masks, masked, prunable, pruned
from snnprune.measure.evaluation import Evaluation
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import DENSE
from snnprune.runtime import SILENT, Progress
from snnprune.training.average import Best, copied
from snnprune.training.fit import Epoch, Hooks, Position, fit, taken_up
from snnprune.training.gradual import Gradual
from snnprune.training.methods import FINETUNED, GRADUAL
from snnprune.training.objective import Objective
from snnprune.training.ranking import dense_masks
from snnprune.training.runs.run import Run
from snnprune.training.runs.state import taking_up
from snnprune.training.runs.stopping import NEVER, Stop
from snnprune.training.setup import Setup, set_up
from snnprune.training.step import Trainer
from snnprune.training.tickets import require_epochs, ticket


@dataclass(frozen=True, kw_only=True)
class Trained:
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
    ranks: Ranks = ALONE,
) -> Trained:
    """Train what `recipe` asks for, pruning on the way where it has a section `gradual`.

    The test images are looked at once, at the end. On a CPU the same recipe gives the same
    weights, bit for bit, also when the run was stopped and taken up again on the way.

    Raises:
        InputError: the model cannot be had, or the data cannot be trained on.
        NonFiniteError: the loss became NaN or infinite; the last state of `run` is a good one.
        StoppedError: `stop` became true, and the state was saved.
    """
    return trained(
        set_up(recipe, data, device=device, run=run, stop=stop, progress=progress, ranks=ranks)
    )


def trained(
    setup: Setup, *, masks: Masks | None = None, objective: Objective | None = None
) -> Trained:
    """Train the network of `setup` for the recipe's epochs, `masks` held throughout."""
    recipe, run, best = setup.recipe, setup.run, Best()
    trainer = setup.trainer(objective=objective)
    trainer.hold(masks or {})
    gradual = Gradual(recipe.gradual, setup, trainer) if recipe.gradual else None
    epochs, steps = recipe.training.epochs, setup.steps_per_epoch
    at = _taken_up(run, trainer, best, epochs)

    def after_epoch(epoch: Epoch) -> bool:
        if gradual is None or gradual.done:
            with trainer.as_kept():
                best.offer(epoch.validation_accuracy, epoch.epoch, trainer.module)
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
        stretch = setup.stretch(epochs=epochs)
        fit(trainer, stretch, hooks, at=at, stop=setup.stop, progress=setup.progress)
    with trainer.as_kept():
        return _result(setup, trainer, best)


def _taken_up(run: Run, trainer: Trainer, best: Best, epochs: int) -> Position:
    """Where `run` goes on, its state put back; the beginning of a new one."""
    state = run.begin()
    if state is None:
        return Position()
    with taking_up(state):
        known = state.position
        at = taken_up(trainer, known, state.groups, epochs=epochs)
        require_epochs(run.rows, at)
        found = state.groups.get("best", {})
        best.restore(known["best"], found, module=trainer.module, epochs=at.epoch)
        return at


def _result(setup: Setup, trainer: Trainer, best: Best) -> Trained:
    """The trained network, its test images looked at once and told of in the metrics."""
    rows = [{k: v for k, v in row.items() if k != "kind"} for row in setup.run.rows]
    epochs = tuple(Epoch(**row) for row in rows)
    measured, masks = setup.measure(), trainer.masking.copy_masks()
    held, gradual = masks or dense_masks(setup.network), setup.recipe.gradual
    row = ticket(
        setup,
        held,
        method=GRADUAL if gradual else FINETUNED if masks else DENSE,
        asked=gradual.sparsity if gradual else pruned(held) / prunable(held),
        validation_accuracy=epochs[-1].validation_accuracy,
        measured=measured,
    )
    setup.run.log(row)
    return Trained(
        recipe=setup.recipe,
        network=setup.network,
        tensors=masked(copied(trainer.module), masks),
        masks=masks,
        best=masked(best.tensors, masks),
        best_epoch=best.epoch,
        epochs=epochs,
        test=measured if measured.images == "test" else None,
    )
