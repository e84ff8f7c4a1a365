"""Recipes: the YAML file of a training run, checked whole before anything else is imported."""

from snnprune.recipe.errors import Problem, RecipeError
from snnprune.recipe.loading import builtin_recipes, load_recipe, parse_override, parse_settings
from snnprune.recipe.schema import DataSection, GridSection, ModelSection, Recipe, expand_grid
from snnprune.recipe.sections import (
    FinetuneSection,
    GradualSection,
    ImpSection,
    OutputSection,
    SearchSection,
    TrainingSection,
)
from snnprune.recipe.yaml_text import dump_recipe

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
    "expand_grid",
    "load_recipe",
    "parse_override",
    "parse_settings",
]
