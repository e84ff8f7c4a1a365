"""How often something failed, and how often it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnprune.escaping import printable
from snnprune.plots.canvas import drawn
from snnprune.plots.looks import BLACK, BLUE


def plot_failures(
    paths: Sequence[Path], counts: Mapping[str, Mapping[str, Any]], allowed: float, conditions: str
) -> None:
    """Draw for each name its `share` of failures with the interval from `low` to `high`.

    Raises:
        OutputError: a file cannot be written.
    """
    height = 0.9 + 0.32 * len(counts)
    with drawn(paths, size=(6.0, height), conditions=conditions) as figure:
        axes = figure.subplots()
        for row, found in enumerate(counts.values()):
            axes.plot([found["low"], found["high"]], [row, row], color=BLUE, linewidth=2)
            axes.plot(found["share"], row, color=BLUE, marker="o", markersize=5)
        axes.axvline(allowed, color=BLACK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(counts)), [printable(name, 40) for name in counts])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("share of trials that failed")
        axes.grid(axis="x")
