"""What was measured over what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from snnprune.escaping import printable
from snnprune.plots.canvas import drawn
from snnprune.plots.looks import BLACK, looks

NAMED = 12  # layers that the legend has room for
LEAST = 1e-5  # what is smaller lies on the edge


def plot_predictions(
    paths: Sequence[Path],
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    conditions: str,
) -> None:
    """Draw the measured chance of a flip over the predicted one, both logarithmic, by layer.

    Raises:
        OutputError: a file cannot be written.
    """
    with drawn(paths, size=(6.0, 4.6), conditions=conditions) as figure:
        axes = figure.subplots()
        known = [v for both in points.values() for each in both for v in each if v > LEAST]
        low = max(LEAST, min(known, default=LEAST) / 2)
        axes.plot([low, 1], [low, 1], color=BLACK, linewidth=0.8, linestyle="--")
        for number, (name, look) in enumerate(looks(list(points)).items()):
            if name not in points:
                continue
            both = ([max(value, low) for value in each] for each in points[name])
            axes.plot(
                *both,
                label=printable(name, 40) if number < NAMED else None,
                color=look.color,
                marker=look.marker,
                markersize=3.5,
                linestyle="none",
                alpha=0.75,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("predicted: density at the threshold x mean change of the membrane")
        axes.set_ylabel("measured: share of spikes that flip")
        axes.grid()
        axes.legend()
