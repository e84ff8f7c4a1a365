"""Recipes: the YAML file of a training run, checked whole before anything else is imported."""

from snnprune.recipe.dumping import dump_recipe
from snnprune.recipe.errors import Problem, RecipeError
from snnprune.recipe.grid import GridSection, runs_of
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.methods import (
    FinetuneSection,
    GradualSection,
    ImpSection,
    OutputSection,
    SearchSection,
)
from snnprune.recipe.overrides import parse_override, parse_settings
from snnprune.recipe.schema import DataSection, ModelSection, Recipe
from snnprune.recipe.sources import builtin_recipes
from snnprune.recipe.training import TrainingSection

__all__ = [
    "DataSection",
    "FinetuneSection",
    "GradualSection",
    "GridSection",
    "ImpSection",
    "ModelSection",
    "OutputSection",
    "Problem",
    "Recipe",
    "RecipeError",
    "SearchSection",
    "TrainingSection",
    "builtin_recipes",
    "dump_recipe",
    "load_recipe",
    "parse_override",
    "parse_settings",
    "runs_of",
]
