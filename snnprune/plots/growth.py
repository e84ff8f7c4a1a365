"""Widths of random networks over that of what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from snnprune.plots.canvas import drawn
from snnprune.plots.looks import looks


def plot_growth(
    paths: Sequence[Path], curves: Mapping[str, Sequence[tuple[int, int]]], conditions: str
) -> None:
    """Draw k over N into each of `paths`, both logarithmic, a line for each of `curves`.

    Raises:
        OutputError: a file cannot be written.
    """
    with drawn(paths, size=(6.4, 4.2), conditions=conditions) as figure:
        axes = figure.subplots()
        for name, look in looks(list(curves)).items():
            points = curves.get(name, [])
            if points:
                axes.plot(
                    [n for n, _ in points],
                    [k for _, k in points],
                    label=name,
                    color=look.color,
                    linestyle=look.dashes,
                    marker=look.marker,
                    markersize=4,
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e+0", "e"))
        axes.set_xlabel("N, width of the target")
        axes.set_ylabel("k, virtual neurons for each layer")
        axes.grid()
        axes.legend()
