"""The pictures and the table that a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snnprune.files.writing import replace_together, write_text
from snnprune.models import read_argument
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import CurveSummary, format_markdown_table
from snnprune.report.plots.accuracy import Tile, plot_grid, plot_search, plot_tickets
from snnprune.report.plots.layers import plot_densities, plot_firing_rates
from snnprune.training.methods import EDGE_POPUP
from snnprune.training.runs.ownership import SHOWN
from snnprune.training.setup import spec_of

SUFFIXES = (".png", ".svg")
TABLE = "table.md"


def draw_run(folder: Path, summary: CurveSummary, recipe: Recipe) -> list[str]:
    """Draw accuracy, densities and firing rates into the run's `folder`, and a table; their names.

    There is nothing to draw of runs that pruned nothing.

    Raises:
        OutputError: a file cannot be written.
    """
    if not summary.points:
        return []
    with replace_together(*(folder / name for name in SHOWN), within=folder) as staged:
        return _draw_pictures(staged[0].parent, summary, recipe)


def _draw_pictures(folder: Path, summary: CurveSummary, recipe: Recipe) -> list[str]:
    searched = EDGE_POPUP in summary.list_methods()
    conditions = format_conditions(recipe, searched=searched)
    classes = _count_classes(recipe)
    pictures = {"densities": plot_densities, "firing-rates": plot_firing_rates}
    if searched and classes is not None:
        plot_search(_list_paths(folder, "accuracy"), summary, conditions, classes)
    else:
        plot_tickets(_list_paths(folder, "accuracy"), summary, conditions)
    for name, plot in pictures.items():
        plot(_list_paths(folder, name), summary, conditions)
    write_text(folder / TABLE, f"{conditions}\n\n{format_markdown_table(summary)}\n")
    names = [path.name for name in ("accuracy", *pictures) for path in _list_paths(folder, name)]
    return [*names, TABLE]


def draw_grid(folder: Path, runs: Sequence[tuple[Recipe, CurveSummary]]) -> list[str]:
    """Draw the accuracies of several networks and data sets into `folder`, and their tables.

    The recipes are resolved. There is nothing to draw of runs that pruned nothing.

    Raises:
        OutputError: a file cannot be written.
    """
    searched = any(EDGE_POPUP in summary.list_methods() for _, summary in runs)
    tiles = [
        Tile(
            title=format_conditions(recipe, searched=searched),
            summary=summary,
            classes=_count_classes(recipe),
        )
        for recipe, summary in runs
        if summary.points
    ]
    if not tiles:
        return []
    texts = (f"{tile.title}\n\n{format_markdown_table(tile.summary)}" for tile in tiles)
    paths = [*_list_paths(folder, "accuracy"), folder / TABLE]
    with replace_together(*paths, within=folder) as (*pictures, table):
        plot_grid(pictures, tiles, searched=searched)
        write_text(table, "\n".join(texts))
    return [path.name for path in paths]


def format_conditions(recipe: Recipe, *, searched: bool = False) -> str:
    """What a number of the run depends on, in a line."""
    steps = read_argument(spec_of(recipe), "time_steps", field="model.name")
    time = [] if steps is None else [f"T = {steps}"]
    return ", ".join([recipe.model.name, *time, recipe.data.name, _format_epochs(recipe, searched)])


def _count_classes(recipe: Recipe) -> int | None:
    classes = read_argument(spec_of(recipe), "classes", field="model.name")
    return classes if isinstance(classes, int) else None


def _format_epochs(recipe: Recipe, searched: bool) -> str:
    """How long the networks were trained, and the scores where that differs."""
    epochs = recipe.training.epochs
    text = f"{epochs} epoch{'s' * (epochs != 1)}"
    own = recipe.search.epochs if searched and recipe.search else None
    return text if own in (None, epochs) else f"{text} (scores {own})"


def _list_paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]
