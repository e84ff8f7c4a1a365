"""Recipes: the YAML file of a training run, checked whole before anything else is imported."""

from snnprune.recipe.dumping import dump_recipe
from snnprune.recipe.errors import Problem, RecipeError
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.overrides import parse_settings
from snnprune.recipe.schema import DataSection, ModelSection, Recipe, TrainingSection
from snnprune.recipe.sources import builtin_recipes

__all__ = [
    "DataSection",
    "ModelSection",
    "Problem",
    "Recipe",
    "RecipeError",
    "TrainingSection",
    "builtin_recipes",
    "dump_recipe",
    "load_recipe",
    "parse_settings",
]
