"""What a run of each command is made of, before it is begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snnprune.masks import Masks, count_kept
from snnprune.measure import Natural, Share
from snnprune.models import read_argument
from snnprune.pruning.criteria import load_criterion
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import ImpSection, SearchSection
from snnprune.report.curves import DENSE
from snnprune.training import (
    EDGE_POPUP,
    FINETUNED,
    GRADUAL,
    Round,
    list_rounds,
    load_method,
)
from snnprune.training.ranking import copy_prunable_weights
from snnprune.training.search import list_search_rounds, share_kept
from snnprune.training.setup import TrainingSetup, spec_of


@dataclass(frozen=True, kw_only=True)
class Training:
    """One of the trainings of a run."""

    method: str
    round: Natural
    sparsity: Share
    kept: Natural
    """Weights that remain."""
    epochs: Natural
    steps: Natural
    speed: float = 1.0
    """Time of a step, as a share of one with all time steps."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The trainings of a run, and what goes with them."""

    trainings: tuple[Training, ...]
    prunable: int
    evaluated_batches: int
    """To measure, choose and calibrate on, in the whole run."""
    models: int
    """That are kept as results."""
    masks: int
    """Likewise."""
    models_in_state: int
    """Copies of the network in a state beside those of its first one."""


def make_plan(command: str, setup: TrainingSetup, masks: Masks) -> TrainingPlan:
    """The plan for the recipe of `setup`; `masks` are those that `finetune` begins with.

    Raises:
        InputError: a criterion or allocation cannot be had.
    """
    recipe = setup.recipe
    sizes = {key: weight.numel() for key, weight in copy_prunable_weights(setup.network).items()}
    if command == "imp":
        return _plan_imp(recipe.imp or ImpSection(), setup, sizes)
    if command == "search":
        return _plan_search(recipe.search or SearchSection(), setup, sizes)
    return _plan_training(setup, sizes, masks)


def _plan_training(setup: TrainingSetup, sizes: Mapping[str, int], masks: Masks) -> TrainingPlan:
    """One training: dense, with masks that are held, or pruning on the way."""
    recipe, total = setup.recipe, sum(sizes.values())
    gradual, epochs = recipe.gradual, recipe.training.epochs
    alive = count_kept(masks) if masks else total
    method = FINETUNED if masks else DENSE
    calibrations = 0
    if gradual is not None:
        method, alive = GRADUAL, total - round(gradual.sparsity * total)
        calibrations = gradual.steps * _count_calibration(setup, gradual.criterion, gradual.samples)
    only = _make_training(method, 0, 1 - alive / total, alive, epochs, setup)
    best = setup.data.validation is not None
    passes = (2 if masks else 1) * (_count_measured(setup) + _count_batches(setup, "validation"))
    return TrainingPlan(
        trainings=(only,),
        prunable=total,
        evaluated_batches=epochs * _count_batches(setup, "validation") + passes + calibrations,
        models=1 + best,
        masks=int(bool(masks) or gradual is not None),
        models_in_state=int(best),
    )


def _plan_imp(section: ImpSection, setup: TrainingSetup, sizes: Mapping[str, int]) -> TrainingPlan:
    """The dense network, then the rounds of every method."""
    total, rounds = sum(sizes.values()), list_rounds(section, setup.recipe.training.epochs)
    calibrations = sum(
        _count_calibration(setup, load_method(round_.method).criterion, section.samples)
        for round_ in rounds
        if round_.round > 0
    )
    if section.drawn_while_dense:  # every ticket after every epoch
        calibrations *= setup.recipe.training.epochs
    if section.early_time_steps is not None:
        setup.rebuild_with_args(
            time_steps=section.early_time_steps
        )  # refused where it cannot be built
    early = _compute_time_share(section, setup.recipe)
    return _plan_rounds(
        setup,
        tuple(
            _make_training(
                round_.method,
                round_.round,
                round_.sparsity,
                total - round(round_.sparsity * total),
                round_.epochs,
                setup,
                speed=1.0 if round_.last else early,
            )
            for round_ in rounds
        ),
        total,
        calibrations,
        models_in_state=1,  # the dense one, once it is there
    )


def _plan_search(
    section: SearchSection, setup: TrainingSetup, sizes: Mapping[str, int]
) -> TrainingPlan:
    """The dense network if asked for, then a search for every sparsity."""

    def alive(round_: Round) -> int:
        if round_.method != EDGE_POPUP:
            return sum(sizes.values())
        return sum(max(1, round(share_kept(round_.sparsity) * size)) for size in sizes.values())

    found = list_search_rounds(section, setup.recipe.training.epochs)
    trainings = tuple(
        _make_training(
            round_.method, round_.round, round_.sparsity, alive(round_), round_.epochs, setup
        )
        for round_ in found
    )
    return _plan_rounds(setup, trainings, sum(sizes.values()), 0, models_in_state=0)


def _plan_rounds(
    setup: TrainingSetup,
    trainings: tuple[Training, ...],
    total: int,
    calibrations: int,
    *,
    models_in_state: int,
) -> TrainingPlan:
    epochs = sum(training.epochs for training in trainings)
    tests = len(trainings) * _count_measured(setup)
    return TrainingPlan(
        trainings=trainings,
        prunable=total,
        evaluated_batches=epochs * _count_batches(setup, "validation") + tests + calibrations,
        models=len(trainings),
        masks=sum(training.method != DENSE for training in trainings),
        models_in_state=models_in_state,
    )


def _make_training(
    method: str,
    number: int,
    sparsity: float,
    alive: int,
    epochs: int,
    setup: TrainingSetup,
    *,
    speed: float = 1.0,
) -> Training:
    return Training(
        method=method,
        round=number,
        sparsity=sparsity,
        kept=alive,
        epochs=epochs,
        steps=epochs * setup.steps_per_epoch,
        speed=speed,
    )


def _count_calibration(setup: TrainingSetup, criterion: str, samples: int) -> int:
    """Batches that statistics for the criterion are taken on."""
    if load_criterion(criterion, field="criterion").needs == "weight":
        return 0
    return -(-samples // setup.recipe.training.batch_size)


def _count_measured(setup: TrainingSetup) -> int:
    """Batches of a pass over what a network is measured on."""
    return _count_batches(setup, setup.data.measured)


def _count_batches(setup: TrainingSetup, split: str) -> int:
    """Batches of a pass over a split; what a loader of the user's gives is taken for one."""
    images = setup.data.of(split)
    if images is None:
        return 0
    count = images.batches(setup.recipe.training.batch_size).count
    return 1 if count is None else count


def _compute_time_share(section: ImpSection, recipe: Recipe) -> float:
    """What a step of the early rounds takes of one with all time steps."""
    steps = read_argument(spec_of(recipe), "time_steps", field="model.name")
    if section.early_time_steps is None or not isinstance(steps, int):
        return 1.0
    return section.early_time_steps / steps
