"""Checks of a recipe that need the tables of names, and no torch."""

import contextlib
from collections.abc import Iterator

from snnprune.allocation import ALLOCATIONS
from snnprune.criteria import CRITERIA
from snnprune.data import require_data
from snnprune.errors import InputError, SnnpruneError
from snnprune.forwards import require_forward
from snnprune.jobs.training.arguments import require_arguments
from snnprune.loops.methods import METHODS
from snnprune.models import MODELS
from snnprune.recipe import Recipe
from snnprune.spelling import did_you_mean
from snnprune.user_code import is_reference


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
def of_file(file: str) -> Iterator[None]:
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
