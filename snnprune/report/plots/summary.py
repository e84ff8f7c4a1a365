"""The pictures of runs that prune, and of runs that search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.data.dataset import format_split
from snnprune.report.curves import CurvePoint, CurveSummary
from snnprune.report.plots.accuracy import (
    AccuracyLevel,
    Curve,
    CurveMark,
    draw_curve,
    draw_curves,
    draw_level,
    plot_accuracy,
)
from snnprune.report.plots.canvas import GREY, choose_line_styles, wrap_text, write_figure
from snnprune.text import make_printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


TITLE_WIDTH = 58  # characters of a line above one of several axes
LONGEST = 3 * TITLE_WIDTH  # more of it would leave the axes no room


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One network on one data set among several."""

    title: str
    """Model, T, data and epochs."""
    summary: CurveSummary
    classes: int | None
    """Of the data, for chance; None where they are not known."""


def plot_tickets(paths: Sequence[Path], summary: CurveSummary, conditions: str) -> None:
    """Draw accuracy against sparsity, a line for each method, dense and random beside them.

    `conditions` names model, T and data; the number of seeds is added.

    Raises:
        OutputError: a file cannot be written.
    """
    plot_accuracy(
        paths,
        _make_curves(summary),
        dense=_make_level(summary.dense),
        conditions=f"{conditions}\n{_format_seeds(summary)}",
        split=summary.split,
    )


def plot_search(
    paths: Sequence[Path], summary: CurveSummary, conditions: str, classes: int
) -> None:
    """Draw accuracy of sub-networks with untrained weights, as figure 3 of Yao et al. 2023.

    The trained dense network stands beside them where it is known, and chance, 1 / `classes`.

    Raises:
        OutputError: a file cannot be written.
    """
    conditions = f"{conditions}\n{_format_seeds(summary)}"
    with write_figure(paths, size=(6.4, 4.4), conditions=conditions) as figure:
        _draw_search(figure.subplots(), summary, classes)
        figure.legend(loc="outside lower center", ncols=3)


def plot_grid(paths: Sequence[Path], tiles: Sequence[Tile], *, searched: bool) -> None:
    """Draw several networks and data sets side by side, as figures 3 and 5 of Yao et al. 2023.

    `searched` has axes as `plot_search`, otherwise as `plot_tickets`.

    Raises:
        OutputError: a file cannot be written.
    """
    columns = min(2, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (0.6 + 4.6 * columns, 0.8 + 3.4 * rows)
    with write_figure(paths, size=size, conditions=_format_seeds(tiles[0].summary)) as figure:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for tile, axes in zip(tiles, places, strict=False):
            if searched:
                _draw_search(axes, tile.summary, tile.classes)
            else:
                draw_curves(axes, _make_curves(tile.summary), _make_level(tile.summary.dense))
                axes.set_ylabel(f"{format_split(tile.summary.split)} accuracy (%)")
            axes.set_title(wrap_text(make_printable(tile.title, LONGEST), TITLE_WIDTH))
        for axes in places[len(tiles) :]:
            axes.remove()
        figure.legend(
            *_collect_handles(figure.axes), loc="outside lower center", ncols=4, handlelength=3.5
        )


def _draw_search(axes: Axes, summary: CurveSummary, classes: int | None) -> None:
    """Untrained sub-networks between chance, 1 / `classes`, and the trained network, in percent."""
    dense = _make_level(summary.dense)
    if dense is not None:
        draw_level(axes, dense, "dense network, trained", linestyle="--")
    for curve in _make_curves(summary):
        untrained = replace(curve, label=f"{curve.label}: weights untrained")
        draw_curve(axes, untrained, [100 * mark.sparsity for mark in curve.marks])
    if classes is not None:
        axes.axhline(100 / classes, color=GREY, linewidth=1, linestyle=":", label="chance")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sparsity (% of the weights masked)")
    axes.set_ylabel(f"{format_split(summary.split)} accuracy (%)")
    axes.grid()


def _collect_handles(places: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """What a legend of all axes shows, each label once."""
    found: dict[str, Artist] = {}
    for axes in places:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _format_seeds(summary: CurveSummary) -> str:
    """How many runs an accuracy is the mean of."""
    if summary.seeds < 2:
        return "one seed"
    return f"mean and sample standard deviation of {summary.seeds} seeds"


def _make_curves(summary: CurveSummary) -> list[Curve]:
    """A curve for each method, of the sparsities at which it has an accuracy."""
    look = choose_line_styles(summary.list_methods())
    return [
        Curve(
            label=method,
            marks=[
                CurveMark(sparsity=point.sparsity, level=level)
                for point in summary.of(method)
                if (level := _make_level(point))
            ],
            look=look[method],
        )
        for method in summary.list_methods()
    ]


def _make_level(point: CurvePoint | None) -> AccuracyLevel | None:
    """The accuracy of a point; None where it has none."""
    if point is None or (mean := point.compute_mean()) is None:
        return None
    return AccuracyLevel(mean=mean, deviation=point.compute_deviation())
