"""Accuracies by method and sparsity as text."""

from __future__ import annotations

from snnprune.curves.summary import Point, Summary
from snnprune.data import worded
from snnprune.markdown import backslashed, table
from snnprune.notation import in_percent


def accuracy_cells(summary: Summary) -> list[list[str]]:
    """A head, then a row for each sparsity: it and the accuracy of each method, in percent."""
    points = {(point.method, point.asked): point for point in summary.points}
    rows = [
        [f"{in_percent(asked)}%"]
        + [_accuracy(points.get((method, asked)), summary) for method in summary.list_methods()]
        for asked in summary.list_sparsities()
    ]
    return [["sparsity", *summary.list_methods()], *rows]


def dense_line(summary: Summary) -> str:
    """The accuracy of the dense network, and what all accuracies are."""
    line = f"{worded(summary.split)} accuracy (%), {_seeds(summary)}"
    if summary.dense is None:
        return line
    return f"dense {_accuracy(summary.dense, summary)}; {line}"


def _seeds(summary: Summary) -> str:
    """How many runs an accuracy is the mean of."""
    if summary.seeds < 2:
        return "one seed"
    return f"mean ± standard deviation of {summary.seeds} seeds"


def markdown_table(summary: Summary) -> str:
    """The accuracies as a Markdown table, the dense network below it."""
    titles, *body = accuracy_cells(summary)
    right = range(len(titles))
    text = table(titles, body, right, escape=backslashed, spaced=True) if body else ""
    end = dense_line(summary)
    return "\n\n".join([*([text] if text else []), f"{end[0].upper()}{end[1:]}."]) + "\n"


def _accuracy(point: Point | None, summary: Summary) -> str:
    """Mean and deviation in percent, with the number of seeds where it is not that of all."""
    if point is None or (mean := point.compute_mean()) is None:
        return "-"
    text = f"{100 * mean:.1f}"
    if (deviation := point.compute_deviation()) is not None:
        text += f" ± {100 * deviation:.1f}"
    seeds = len(point.accuracies)
    return text if seeds == summary.seeds else f"{text} (n={seeds})"
