"""Layers and neurons: coloured squares over sparsities, and a small picture of each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snnprune.errors import format_percent_number, layer_name, make_printable
from snnprune.report.curves import CurvePoint, CurveSummary
from snnprune.report.plots.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    VERMILLION,
    save_figure,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap, Normalize


def plot_sensitivity(
    paths: Sequence[Path],
    sparsities: Sequence[float],
    measures: Mapping[str, Mapping[str, Sequence[float | None]]],
    conditions: str,
) -> None:
    """Draw each of `measures`, percentages by layer and sparsity, as a panel of squares.

    A measure of which nothing is known is left out.

    Raises:
        OutputError: a file cannot be written.
    """
    columns = [format_percent_number(sparsity) for sparsity in sparsities]
    plot_heat(
        paths,
        [
            HeatPanel(title=title, columns=columns, rows=rows)
            for title, rows in measures.items()
            if any(value is not None for row in rows.values() for value in row)
        ],
        measure="%",
        conditions=conditions,
        text=lambda value: f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}",
    )


def plot_densities(paths: Sequence[Path], summary: CurveSummary, conditions: str) -> None:
    """Draw the share of weights kept, in percent, by layer and sparsity, a panel for each method.

    Raises:
        OutputError: a file cannot be written.
    """

    def densities(point: CurvePoint) -> Mapping[str, float]:
        return {layer_name(weight): 100 * density for weight, density in point.densities.items()}

    plot_heat(
        paths,
        _make_panels(summary, densities, []),
        measure="weights kept (%)",
        conditions=f"{conditions}\n{_format_seeds(summary)}",
        highest=100.0,
        text=lambda value: f"{value:.0f}" if value >= 9.95 else f"{value:.2g}",
        log=True,
    )


def plot_firing_rates(paths: Sequence[Path], summary: CurveSummary, conditions: str) -> None:
    """Draw spikes per neuron per time step, by neuron and sparsity, dense first.

    Raises:
        OutputError: a file cannot be written.
    """
    dense = [summary.dense] if summary.dense else []
    plot_heat(
        paths,
        _make_panels(summary, lambda point: point.firing_rates, dense),
        measure="spikes per neuron\nper time step",
        conditions=f"{conditions}\n{_format_seeds(summary)}",
        text=lambda value: f"{value:.3f}".removeprefix("0"),
    )


def _make_panels(
    summary: CurveSummary,
    values: Callable[[CurvePoint], Mapping[str, float]],
    before: Sequence[CurvePoint],
) -> list[HeatPanel]:
    """A panel for each method with `before` as its first columns."""
    panels = []
    for method in summary.list_methods():
        points = [*before, *summary.of(method)]
        names = dict.fromkeys(name for point in points for name in values(point))
        panels.append(
            HeatPanel(
                title=method,
                columns=[format_percent_number(point.sparsity) for point in points],
                rows={name: [values(point).get(name) for point in points] for name in names},
            )
        )
    return panels


def _format_seeds(summary: CurveSummary) -> str:
    return "one seed" if summary.seeds < 2 else f"mean of {summary.seeds} seeds"


LONGEST = 34  # characters of a name or title
SIDE_BY_SIDE = 3  # panels
NUMBERED = 8  # columns up to which there is room for numbers
WIDE, NARROW, HIGH = 0.42, 0.27, 0.22  # inches of a square
DARK = 0.55  # of the brightness, below which a number is white


@dataclass(frozen=True, kw_only=True)
class HeatPanel:
    """One method: a row for each name, a column for each sparsity; None where nothing is known."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]


def plot_heat(
    paths: Sequence[Path],
    panels: Sequence[HeatPanel],
    *,
    measure: str,
    conditions: str,
    text: Callable[[float], str],
    highest: float | None = None,
    log: bool = False,
) -> None:
    """Draw `panels` into each of `paths`; zeros stand out in a colour of their own where `log`.

    Raises:
        OutputError: a file cannot be written.
    """
    panels = [panel for panel in panels if panel.rows]
    across = min(len(panels), SIDE_BY_SIDE)
    with write_figure(paths, size=_choose_size(panels, across), conditions=conditions) as figure:
        if not panels:
            figure.text(0.5, 0.3, f"{measure}: not measured", ha="center")
            return
        grid = figure.subplots(_count_rows(panels, across), across, squeeze=False)
        norm, colors = _make_scale(panels, highest, log=log)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            mesh = _draw_panel(axes, panel, norm, colors, text)
            if number % across:
                axes.set_yticklabels([])
        figure.colorbar(mesh, ax=grid, label=measure, aspect=40, pad=0.01, format="{x:g}")


def _count_rows(panels: Sequence[HeatPanel], across: int) -> int:
    """Rows of panels."""
    return -(-len(panels) // across)


def _choose_size(panels: Sequence[HeatPanel], across: int) -> tuple[float, float]:
    """Inches, by the number of squares and the length of the names."""
    if not panels:
        return 5.0, 1.4
    columns = max(len(panel.columns) for panel in panels)
    rows = max(len(panel.rows) for panel in panels)
    longest = max(len(name) for panel in panels for name in shorten_names(list(panel.rows)))
    width = across * (0.25 + columns * (WIDE if columns <= NUMBERED else NARROW))
    height = _count_rows(panels, across) * (HIGH * rows + 0.9)
    return max(5.0, width + 0.075 * longest + 1.2), height + 0.8


def _make_scale(
    panels: Sequence[HeatPanel], highest: float | None, *, log: bool
) -> tuple[Normalize, Colormap]:
    """The colours of the values of all panels."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize

    values = [value for panel in panels for row in panel.rows.values() for value in row if value]
    colors = mpl.colormaps["cividis"]
    top = highest or max(values, default=1.0)
    if not log:
        return Normalize(0, top), colors
    colors = colors.with_extremes(under=VERMILLION)
    return LogNorm(min([*values, top / 2]), top), colors


def _draw_panel(
    axes: Axes, panel: HeatPanel, norm: Normalize, colors: Colormap, text: Callable[[float], str]
) -> QuadMesh:
    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.rows.values()]
    )
    # a logarithm would take zeros for unknown values; so small a number lies below its range
    shown = np.where(values == 0, np.finfo(float).tiny, values)
    mesh = axes.pcolormesh(shown, norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_title(make_printable(panel.title, 40))
    axes.set_xlabel("sparsity (%)")
    axes.set_xticks(
        [column + 0.5 for column in range(len(panel.columns))], panel.columns, rotation=90
    )
    axes.set_yticks([row + 0.5 for row in range(len(panel.rows))], shorten_names(list(panel.rows)))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    if len(panel.columns) <= NUMBERED:
        _write_values(axes, values, norm, colors, text)
    return mesh


def _write_values(
    axes: Axes,
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    norm: Normalize,
    colors: Colormap,
    text: Callable[[float], str],
) -> None:
    """The value in each square."""
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = colors(norm(value) if value else 0.0)
        bright = 0.3 * red + 0.59 * green + 0.11 * blue
        stands_out = not value and norm.vmin  # a zero on a logarithmic scale
        color = "white" if bright < DARK and not stands_out else "black"
        axes.text(
            column + 0.5, row + 0.5, text(value), ha="center", va="center", color=color, fontsize=7
        )


def shorten_names(names: Sequence[str]) -> list[str]:
    """Names that fit beside their rows, without the modules and the middle that can be missed."""
    parts = [name.split(".") for name in names]
    modules = zip(*(each[:-1] for each in parts), strict=False)
    shared = len(list(takewhile(lambda module: len(set(module)) == 1, modules)))
    if len(names) > 1 and shared:
        return [_shorten_name(f"…{make_printable('.'.join(each[shared:]))}") for each in parts]
    return [_shorten_name(make_printable(name)) for name in names]


def _shorten_name(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    head = LONGEST // 3
    return f"{name[:head]}…{name[1 - LONGEST + head :]}"


SIZE = (2.6, 1.75)  # inches
BOTTOM, HEIGHT = 0.2, 0.66  # of the axes, in heights of the picture


@contextmanager
def _draw_small_picture(path: Path, title: str, left: float = 0.04) -> Iterator[Axes]:
    """Axes of a small picture; `path` has it after the block."""
    from matplotlib import style
    from matplotlib.figure import Figure

    small = {"font.size": 8, "axes.titlesize": 8, "svg.fonttype": "none"}
    with style.context(["default", STYLE, small]):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((left, BOTTOM, 0.97 - left, HEIGHT))
        yield axes
        axes.set_title(_shorten_name(make_printable(title)))
        save_figure(figure, path)


def plot_membrane(
    path: Path,
    title: str,
    edges: Sequence[float],
    before: Sequence[int],
    after: Sequence[int],
    radius: float | None,
) -> None:
    """Draw how often a membrane is how far from its threshold, before and after, as shares.

    The counts of (bins + 2) are of u - u_th; the crisis neighbourhood of half-width `radius` about
    the threshold is shaded.

    Raises:
        OutputError: `path` cannot be written.
    """
    low, high = _find_span(edges, before, after)
    inner = slice(low + 1, high + 1)
    bounds = edges[low : high + 1]
    with _draw_small_picture(path, title) as axes:
        if radius is not None:
            reach = min(radius, bounds[-1]), max(-radius, bounds[0])
            axes.axvspan(reach[1], reach[0], color=ORANGE, alpha=0.25, linewidth=0)
        axes.stairs(_compute_shares(before)[inner], bounds, fill=True, color=GREY, alpha=0.45)
        axes.stairs(_compute_shares(after)[inner], bounds, color=BLUE, linewidth=1.1)
        axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--")
        axes.set_xlim(bounds[0], bounds[-1])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("u - threshold", labelpad=1)


def plot_scores(
    path: Path, title: str, edges: Sequence[float], kept: Sequence[int], pruned: Sequence[int]
) -> None:
    """Draw how many weights of a layer have which score, those that are kept on the others.

    `edges` (bins + 1,) are logarithms of scores to base 10.

    Raises:
        OutputError: `path` cannot be written.
    """
    with _draw_small_picture(path, title) as axes:
        axes.stairs(pruned, edges, fill=True, color=VERMILLION, alpha=0.55)
        both = [one + other for one, other in zip(kept, pruned, strict=True)]
        axes.stairs(both, edges, baseline=list(pruned), fill=True, color=BLUE, alpha=0.75)
        axes.set_xlim(_find_lower_end(edges, both), edges[-1])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("log10 score", labelpad=1)


def plot_flips(path: Path, predicted: Sequence[float], measured: Sequence[float]) -> None:
    """Draw the measured share of flipped spikes of each neuron over what was predicted.

    Raises:
        OutputError: `path` cannot be written.
    """
    with _draw_small_picture(path, "", left=0.26) as axes:
        seen = [value for value in (*predicted, *measured) if value > 0]
        low, high = min(seen, default=1e-3) / 2, min(1.2, 2 * max(seen, default=1.0))
        axes.plot([low, high], [low, high], color=BLACK, linewidth=0.8, linestyle="--")
        # what is 0 lies on the edge
        points = ([max(value, low) for value in each] for each in (predicted, measured))
        axes.plot(*points, color=BLUE, marker="o", markersize=4, linestyle="none")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("predicted", labelpad=0)
        axes.set_ylabel("measured", labelpad=0)
        axes.minorticks_off()


def _compute_shares(counts: Sequence[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _find_span(edges: Sequence[float], *histograms: Sequence[int]) -> tuple[int, int]:
    """The inner bins, from and to, that hold all but a thousandth of each side of each histogram.

    The threshold is always seen, with a little on either side.
    """
    zero = sum(edge < 0 for edge in edges)
    first, last = zero - 8, zero + 8
    for counts in histograms:
        shares, total = _compute_shares(counts)[1:-1], 0.0
        inside = []
        for number, share in enumerate(shares):
            total += share
            if 0.001 < total < 0.999 and share:
                inside.append(number)
        if inside:
            first, last = min(first, inside[0]), max(last, inside[-1] + 1)
    return max(0, first), min(len(edges) - 1, last)


def _find_lower_end(edges: Sequence[float], counts: Sequence[int]) -> float:
    """Where all but a thousandth of the weights begin: scores near 0 have logarithms far below."""
    total, seen = sum(counts), 0
    for edge, count in zip(edges, counts, strict=False):
        seen += count
        if seen > total / 1000:
            return edge
    return edges[0]
