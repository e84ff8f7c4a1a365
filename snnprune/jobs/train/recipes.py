"""Checks of a recipe that need the tables of names, and no torch."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from snnprune.data.catalogue import require_data
from snnprune.errors import InputError, SnnpruneError
from snnprune.errors.text import did_you_mean
from snnprune.models import MODELS
from snnprune.plugins.forwards import require_forward
from snnprune.plugins.user_code import is_reference
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.recipe.errors import make_problem
from snnprune.recipe.schema import Recipe
from snnprune.recipe.section import Count, Section
from snnprune.training.methods import METHODS


class NeuronArguments(Section):
    """Those of `snnprune.models.lif.Dynamics`."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    threshold: float = 1.0
    reset: Literal["hard", "soft"] = "hard"
    v_reset: float = 0.0
    v_rest: float = 0.0
    decay_input: bool = False
    surrogate: Literal["atan", "triangle", "sigmoid"] = "atan"
    detach_reset: bool = True


class ModelArguments(Section):
    """Those of every built-in model."""

    in_channels: Count = 1
    size: Count = 1
    classes: Count = 1
    time_steps: Count = 1
    neuron: NeuronArguments | None = None


class ConvSnnArguments(ModelArguments):
    """Those of `conv-snn`."""

    width: Count = 1
    depth: Count = 1


ARGUMENTS: Mapping[str, type[ModelArguments]] = {
    "conv-snn": ConvSnnArguments,
    "res-snn-19": ModelArguments,
    "res-snn-19-light": ModelArguments,
    "snn-vgg-16": ModelArguments,
    "6conv2fc": ModelArguments,
}


def require_arguments(model: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that a built-in model does not take; of others nothing is known.

    Raises:
        InputError: there is no such argument, or its value is outside its range.
    """
    known = ARGUMENTS.get(model)
    if known is None:
        return
    for name in args:
        if name not in known.model_fields:
            raise InputError(
                f"{model} has no argument {name!r}",
                field="model.args",
                hint=did_you_mean(name, known.model_fields),
            )
    try:
        known.model_validate(dict(args))
    except ValidationError as error:
        found = make_problem(error.errors()[0], 0, root=known)
        field = f"model.args.{found.field}"
        raise InputError(found.message, field=field, hint=found.hint) from None


def require_names(recipe: Recipe) -> None:
    """Refuse a recipe that names what does not exist; nothing is run or imported of the user's.

    Raises:
        InputError: a model, data set, way to run it, method, criterion or allocation is not known,
            or a built-in model takes no such argument.
    """
    MODELS.require(recipe.model.name, field="model.name")
    require_data(recipe.data.name, field="data.name")
    for name in recipe.grid.models if recipe.grid else ():
        MODELS.require(name, field="grid.models")
    for name in recipe.grid.data if recipe.grid else ():
        require_data(name, field="grid.data")
    for name in (recipe.grid and recipe.grid.models) or (recipe.model.name,):
        require_arguments(name, recipe.model.args)
    for name in ("test", "evaluation"):
        if (other := getattr(recipe.data, name)) is not None:
            require_data(other, field=f"data.{name}")
    require_forward(recipe.model.forward, field="model.forward")
    if recipe.gradual is not None:
        CRITERIA.require(recipe.gradual.criterion, field="gradual.criterion")
    for method in recipe.imp.methods if recipe.imp else ():
        _require_method(method)
    for name, section in (("imp", recipe.imp), ("gradual", recipe.gradual)):
        if section is not None and section.allocation is not None:
            ALLOCATIONS.require(section.allocation, field=f"{name}.allocation")


@contextlib.contextmanager
def name_file_in_errors(file: str) -> Iterator[None]:
    """Errors in the block are of this recipe where they name no other file."""
    try:
        yield
    except SnnpruneError as error:
        error.file = error.file or file
        raise


def require_one_pair(recipe: Recipe, command: str) -> None:
    """Refuse a grid where one network is at hand.

    Raises:
        InputError: the recipe has one.
    """
    if recipe.grid is not None:
        raise InputError(
            f"{command} is for one network on one data set",
            field="grid",
            hint="--set grid=null takes those of model and data",
        )


def _require_method(name: str) -> None:
    known = (*METHODS, *CRITERIA.names())
    if name not in known and not is_reference(name):
        raise InputError(
            f"unknown method {name!r}", field="imp.methods", hint=did_you_mean(name, known)
        )
