"""Checks of a recipe that need the tables of names, and no torch."""

from snnprune.data import require_data
from snnprune.models import MODELS
from snnprune.recipe import Recipe


def require_names(recipe: Recipe) -> None:
    """Refuse a recipe that names a model or data set that does not exist.

    Raises:
        InputError: it does.
    """
    MODELS.require(recipe.model.name, field="model.name")
    require_data(recipe.data.name, field="data.name")
