"""Accuracy against sparsity: curves of whatever was measured, and of runs that prune or search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.errors import format_split, make_printable
from snnprune.report.curves import CurvePoint, CurveSummary
from snnprune.report.plots.canvas import (
    BLACK,
    GREY,
    LineStyle,
    choose_line_styles,
    compute_position,
    show_sparsities,
    wrap_text,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


NEAR = 0.06  # of accuracy: what is seen enlarged lies so close below the dense network
ENLARGED = 4  # times at least, or it is not worth a second look
BESIDE = 0.02  # of a doubling of the sparsity: how far apart spreads of one sparsity are drawn


@dataclass(frozen=True, kw_only=True)
class AccuracyLevel:
    """An accuracy in [0, 1]; the deviation is None where there is one measurement."""

    mean: float
    deviation: float | None = None

    @property
    def low(self) -> float:
        """The lower end of the spread."""
        return self.mean - (self.deviation or 0.0)

    @property
    def high(self) -> float:
        """The upper end of the spread."""
        return self.mean + (self.deviation or 0.0)


@dataclass(frozen=True, kw_only=True)
class CurveMark:
    """What was measured at one sparsity, in [0, 1)."""

    sparsity: float
    level: AccuracyLevel


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a picture."""

    label: str
    marks: Sequence[CurveMark]
    look: LineStyle

    @property
    def spread(self) -> bool:
        """Whether a mark was measured more than once."""
        return any(mark.level.deviation is not None for mark in self.marks)


def plot_accuracy(
    paths: Sequence[Path],
    curves: Sequence[Curve],
    *,
    dense: AccuracyLevel | None,
    conditions: str,
    split: str = "test",
) -> None:
    """Draw `curves` into each of `paths`; what lies close to dense once more, enlarged.

    Raises:
        OutputError: a file cannot be written.
    """
    levels = [mark.level for curve in curves for mark in curve.marks]
    whole = _find_limits([*levels, *([dense] if dense else [])])
    near = _find_close_limits(levels, dense)
    views = (
        [whole, near]
        if near and _measure_height(whole) > ENLARGED * _measure_height(near)
        else [whole]
    )
    with write_figure(paths, size=(1 + 5.4 * len(views), 4.4), conditions=conditions) as figure:
        panels = figure.subplots(1, len(views), squeeze=False)[0]
        for axes, view in zip(panels, views, strict=True):
            draw_curves(axes, curves, dense)
            axes.set_ylim(100 * view[0], 100 * view[1])
        panels[0].set_ylabel(f"{format_split(split)} accuracy (%)")
        if len(views) > 1:
            panels[1].set_title("enlarged")
        handles, labels = panels[0].get_legend_handles_labels()
        across = len(labels) if len(labels) <= 2 * len(views) + 1 else 3
        figure.legend(handles, labels, loc="outside lower center", ncols=across, handlelength=3.5)


def _measure_height(view: tuple[float, float]) -> float:
    return view[1] - view[0]


def _find_limits(levels: Iterable[AccuracyLevel]) -> tuple[float, float]:
    """Limits in which all of `levels` are seen, with a margin."""
    levels = list(levels)
    low = min((level.low for level in levels), default=0.0)
    high = max((level.high for level in levels), default=1.0)
    margin = max(0.05 * (high - low), 0.002)
    return low - margin, high + margin


def _find_close_limits(
    levels: Sequence[AccuracyLevel], dense: AccuracyLevel | None
) -> tuple[float, float] | None:
    """Limits close to dense, or to the best; None where hardly anything lies there."""
    best = dense.mean if dense else max((level.mean for level in levels), default=0.0)
    close = [level for level in levels if level.mean >= best - NEAR]
    if len(close) < 2:
        return None
    low, high = _find_limits([*close, *([dense] if dense else [])])
    return max(low, best - NEAR), high


def draw_curves(axes: Axes, curves: Sequence[Curve], dense: AccuracyLevel | None) -> None:
    """All lines on one pair of axes, accuracies in percent."""
    if dense is not None:
        draw_level(axes, dense, "dense", linestyle=":")
    for number, curve in enumerate(curves):
        aside = BESIDE * (number - (len(curves) - 1) / 2) if curve.spread else 0.0
        draw_curve(axes, curve, [compute_position(mark.sparsity) + aside for mark in curve.marks])
    sparsities = [mark.sparsity for curve in curves for mark in curve.marks]
    show_sparsities(axes, sparsities or [0.0])
    axes.grid()


def draw_level(axes: Axes, level: AccuracyLevel, label: str, *, linestyle: str) -> None:
    """A level right across, with its spread as a band, in percent."""
    axes.axhline(100 * level.mean, color=BLACK, linewidth=1, linestyle=linestyle, label=label)
    if level.deviation is not None:
        axes.axhspan(100 * level.low, 100 * level.high, color=BLACK, alpha=0.08, linewidth=0)


def draw_curve(axes: Axes, curve: Curve, x: Sequence[float]) -> None:
    """A curve whose marks lie at `x`, with their spreads as bars, in percent."""
    levels = [mark.level for mark in curve.marks]
    axes.errorbar(
        x,
        [100 * level.mean for level in levels],
        yerr=[100 * (level.deviation or 0.0) for level in levels] if curve.spread else None,
        label=make_printable(curve.label, 60),
        color=curve.look.color,
        linestyle=curve.look.dashes,
        marker=curve.look.marker,
        markersize=4,
        linewidth=1.3,
        elinewidth=0.8,
    )


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
