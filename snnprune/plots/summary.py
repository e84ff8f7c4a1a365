"""The pictures of runs that prune, and of runs that search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snnprune.curves import Point, Summary
from snnprune.data import worded
from snnprune.plots.accuracy import (
    Curve,
    Level,
    Mark,
    draw_curve,
    draw_level,
    plot_accuracy,
)
from snnprune.plots.canvas import drawn
from snnprune.plots.looks import GREY, looks


def plot_tickets(paths: Sequence[Path], summary: Summary, conditions: str) -> None:
    """Draw accuracy against sparsity, a line for each method, dense and random beside them.

    `conditions` names model, T and data; the number of seeds is added.

    Raises:
        OutputError: a file cannot be written.
    """
    plot_accuracy(
        paths,
        _curves(summary),
        dense=_level(summary.dense),
        conditions=f"{conditions}\n{_seeds(summary)}",
        split=summary.split,
    )


def plot_search(paths: Sequence[Path], summary: Summary, conditions: str, classes: int) -> None:
    """Draw accuracy of sub-networks with untrained weights, as figure 3 of Yao et al. 2023.

    The trained dense network stands beside them where it is known, and chance, 1 / `classes`.

    Raises:
        OutputError: a file cannot be written.
    """
    conditions = f"{conditions}\n{_seeds(summary)}"
    with drawn(paths, size=(6.4, 4.4), conditions=conditions) as figure:
        axes = figure.subplots()
        dense = _level(summary.dense)
        if dense is not None:
            draw_level(axes, dense, "dense network, trained", linestyle="--")
        for curve in _curves(summary):
            untrained = replace(curve, label=f"{curve.label}: weights untrained")
            draw_curve(axes, untrained, [100 * mark.sparsity for mark in curve.marks])
        axes.axhline(100 / classes, color=GREY, linewidth=1, linestyle=":", label="chance")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("sparsity (% of the weights masked)")
        axes.set_ylabel(f"{worded(summary.split)} accuracy (%)")
        axes.grid()
        figure.legend(loc="outside lower center", ncols=3)


def _seeds(summary: Summary) -> str:
    """How many runs an accuracy is the mean of."""
    if summary.seeds < 2:
        return "one seed"
    return f"mean and sample standard deviation of {summary.seeds} seeds"


def _curves(summary: Summary) -> list[Curve]:
    look = looks(summary.methods)
    return [
        Curve(
            label=method,
            marks=[
                Mark(sparsity=point.sparsity, level=level)
                for point in summary.of(method)
                if (level := _level(point))
            ],
            look=look[method],
        )
        for method in summary.methods
    ]


def _level(point: Point | None) -> Level | None:
    if point is None or point.mean is None:
        return None
    return Level(mean=point.mean, deviation=point.deviation)
