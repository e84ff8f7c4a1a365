"""The pictures and the table that a run leaves in its folder."""

from __future__ import annotations

from pathlib import Path

from snnprune.curves import Summary, markdown_table
from snnprune.files import write_text
from snnprune.loops.methods import EDGE_POPUP
from snnprune.loops.resolving import spec_of
from snnprune.models import argument
from snnprune.plots import plot_densities, plot_firing_rates, plot_search, plot_tickets
from snnprune.recipe import Recipe

SUFFIXES = (".png", ".svg")
TABLE = "table.md"


def draw(folder: Path, summary: Summary, recipe: Recipe) -> list[str]:
    """Draw accuracy, densities and firing rates into `folder`, and a table; the files' names.

    There is nothing to draw of runs that pruned nothing.

    Raises:
        OutputError: a file cannot be written.
    """
    if not summary.points:
        return []
    searched = EDGE_POPUP in summary.methods
    conditions = conditions_of(recipe, searched=searched)
    classes = argument(spec_of(recipe), "classes", field="model.name")
    pictures = {"densities": plot_densities, "firing-rates": plot_firing_rates}
    if searched and isinstance(classes, int):
        plot_search(_paths(folder, "accuracy"), summary, conditions, classes)
    else:
        plot_tickets(_paths(folder, "accuracy"), summary, conditions)
    for name, plot in pictures.items():
        plot(_paths(folder, name), summary, conditions)
    write_text(folder / TABLE, f"{conditions}\n\n{markdown_table(summary)}\n")
    names = [path.name for name in ("accuracy", *pictures) for path in _paths(folder, name)]
    return [*names, TABLE]


def conditions_of(recipe: Recipe, *, searched: bool = False) -> str:
    """What a number of the run depends on, in a line."""
    steps = argument(spec_of(recipe), "time_steps", field="model.name")
    time = [] if steps is None else [f"T = {steps}"]
    return ", ".join([recipe.model.name, *time, recipe.data.name, _epochs(recipe, searched)])


def _epochs(recipe: Recipe, searched: bool) -> str:
    """How long the networks were trained, and the scores where that differs."""
    epochs = recipe.training.epochs
    text = f"{epochs} epoch{'s' * (epochs != 1)}"
    own = recipe.search.epochs if searched and recipe.search else None
    return text if own in (None, epochs) else f"{text} (scores {own})"


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]
