"""Values by name and sparsity as coloured squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snnprune.escaping import printable
from snnprune.plots.canvas import drawn
from snnprune.plots.looks import VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap, Normalize

LONGEST = 34  # characters of a name
SIDE_BY_SIDE = 3  # panels
NUMBERED = 8  # columns up to which there is room for numbers
WIDE, NARROW, HIGH = 0.42, 0.27, 0.22  # inches of a square
DARK = 0.55  # of the brightness, below which a number is white


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One method: a row for each name, a column for each sparsity; None where nothing is known."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]


def plot_heat(
    paths: Sequence[Path],
    panels: Sequence[Panel],
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
    if not any(panel.rows for panel in panels):
        return
    across = min(len(panels), SIDE_BY_SIDE)
    down = -(-len(panels) // across)
    with drawn(paths, size=_size(panels, across, down), conditions=conditions) as figure:
        grid = figure.subplots(down, across, squeeze=False)
        norm, colors = _scale(panels, highest, log=log)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            mesh = _draw(axes, panel, norm, colors, text)
            if number % across:
                axes.set_yticklabels([])
        figure.colorbar(mesh, ax=grid, label=measure, aspect=40, pad=0.01, format="{x:g}")


def _size(panels: Sequence[Panel], across: int, down: int) -> tuple[float, float]:
    """Inches, by the number of squares and the length of the names."""
    columns = max(len(panel.columns) for panel in panels)
    rows = max(len(panel.rows) for panel in panels)
    longest = max(len(_short(name)) for panel in panels for name in panel.rows)
    width = across * (0.25 + columns * (WIDE if columns <= NUMBERED else NARROW))
    return max(5.0, width + 0.075 * longest + 1.2), down * (HIGH * rows + 0.9) + 0.6


def _scale(
    panels: Sequence[Panel], highest: float | None, *, log: bool
) -> tuple[Normalize, Colormap]:
    """The colours of the values of all panels."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize

    values = [value for panel in panels for row in panel.rows.values() for value in row if value]
    colors = mpl.colormaps["cividis"].copy()
    colors.set_bad("white")
    top = highest or max(values, default=1.0)
    if not log:
        return Normalize(0, top), colors
    colors.set_under(VERMILLION)
    return LogNorm(min([*values, top / 2]), top), colors


def _draw(
    axes: Axes, panel: Panel, norm: Normalize, colors: Colormap, text: Callable[[float], str]
) -> QuadMesh:
    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.rows.values()]
    )
    # a logarithm would take zeros for unknown values; so small a number lies below its range
    shown = np.where(values == 0, np.finfo(float).tiny, values)
    mesh = axes.pcolormesh(shown, norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    axes.set_title(printable(panel.title, 40))
    axes.set_xlabel("sparsity (%)")
    axes.set_xticks(
        [column + 0.5 for column in range(len(panel.columns))], panel.columns, rotation=90
    )
    axes.set_yticks([row + 0.5 for row in range(len(panel.rows))], [*map(_short, panel.rows)])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    if len(panel.columns) <= NUMBERED:
        _write(axes, values, norm, colors, text)
    return mesh


def _write(
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
        color = "white" if bright < DARK and value else "black"
        axes.text(
            column + 0.5, row + 0.5, text(value), ha="center", va="center", color=color, fontsize=7
        )


def _short(name: str) -> str:
    """A name that fits beside its row, its middle left out."""
    name = printable(name, 2 * LONGEST)
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST // 3]}…{name[1 - LONGEST + LONGEST // 3 :]}"
