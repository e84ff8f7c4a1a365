"""Training a pruned network on, its masks held, perhaps under a teacher."""

from __future__ import annotations

from snnprune.errors import InputError
from snnprune.masks import Masks, apply_masks, count_prunable, count_pruned
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import FinetuneSection, GradualSection
from snnprune.report.curves import DENSE
from snnprune.training import PRUNED
from snnprune.training.optimization import Distillation, Objective, Teacher
from snnprune.training.ranking import make_dense_masks
from snnprune.training.setup import TrainingSetup
from snnprune.training.tickets import make_ticket_row
from snnprune.training.train import TrainedNetwork, train_network
from snnprune.training.weights import copy_to_cpu


def finetune(
    setup: TrainingSetup, masks: Masks, teacher: TrainingSetup | None = None
) -> TrainedNetwork:
    """Train the network of `setup`, whose recipe is that of fine-tuning, with the weights that it
    has.

    What `masks` prune is 0 throughout; with a section `gradual` more is pruned on the way. The
    network of `teacher` is learnt from beside the labels. Test images are looked at before and
    after; `setup.run` logs both, and the teacher, as tickets.

    Raises:
        InputError: `gradual` asks for less than is pruned already.
        NonFiniteError: the loss became NaN or infinite; the last state of the run is a good one.
        StoppedError: `setup.stop` became true, and the state was saved.
    """
    objective = prepare_finetune(setup, masks, teacher)
    measured = [_measure_network(setup, masks, PRUNED)]
    if teacher is not None:
        measured.append(_measure_network(teacher, make_dense_masks(teacher.network), DENSE))
    found = train_network(setup, masks=masks, objective=objective)
    for row in measured:
        setup.run.log(row)
    return found


def prepare_finetune(
    setup: TrainingSetup, masks: Masks, teacher: TrainingSetup | None
) -> Objective | None:
    """Prune the network of `setup` by `masks`; what it is to learn, None for the labels alone.

    Raises:
        InputError: the section `gradual` asks for less than is pruned already.
    """
    section, training = setup.recipe.finetune, setup.recipe.training
    _require_more_than(masks, setup.recipe.gradual)
    setup.load(apply_masks(copy_to_cpu(setup.module), masks))
    if teacher is None or section is None:
        return None
    return Distillation(
        Teacher(teacher.network, training),
        training,
        share=section.distillation,
        temperature=section.temperature,
    )


def make_finetune_recipe(recipe: Recipe) -> Recipe:
    """`recipe` with the training that its section `finetune` asks for.

    Without one: a tenth of the epochs, at a tenth of the learning rate. The epochs of `warmup` and
    `step` shrink or grow with the whole, so that the schedule keeps its shape.

    Raises:
        InputError: the section `gradual` does not fit into these epochs.
    """
    section, training = recipe.finetune or FinetuneSection(), recipe.training
    epochs = section.epochs or max(1, training.epochs // 10)
    steps = (step * epochs // training.epochs for step in training.step_epochs)
    changed = {
        "epochs": epochs,
        "learning_rate": section.learning_rate or training.learning_rate / 10,
        "warmup_epochs": training.warmup_epochs * epochs // training.epochs,
        "step_epochs": tuple(sorted({step for step in steps if step > 0})),
    }
    if recipe.gradual:
        _require_room(recipe.gradual, epochs)
    training = training.model_copy(update=changed)
    return recipe.model_copy(update={"training": training, "finetune": section})


def _measure_network(setup: TrainingSetup, masks: Masks, method: str) -> dict[str, object]:
    """The network as it is now."""
    return make_ticket_row(
        setup,
        masks,
        method=method,
        asked=count_pruned(masks) / count_prunable(masks),
        validation_accuracy=setup.accuracy(),
        measured=setup.measure(),
    )


def _require_more_than(masks: Masks, gradual: GradualSection | None) -> None:
    before = count_pruned(masks) / count_prunable(masks)
    if gradual is not None and gradual.sparsity < before:
        raise InputError(
            f"{gradual.sparsity:g} is less than what is pruned already, {before:.4f}",
            field="gradual.sparsity",
        )


def _require_room(gradual: GradualSection, epochs: int) -> None:
    end = gradual.end_epoch or epochs
    hint = "finetune.epochs says how many there are"
    if end > epochs:
        message = f"{end} should be at most the epochs of finetune, which are {epochs}"
        raise InputError(message, field="gradual.end_epoch", hint=hint)
    if gradual.start_epoch >= end:
        message = f"{gradual.start_epoch} should be less than the end, {end}"
        raise InputError(message, field="gradual.start_epoch", hint=hint)
