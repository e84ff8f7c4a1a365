"""Accuracy by method and sparsity, summed up over seeds: for reports, and as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from snnprune.errors import (
    escape_with_backslashes,
    format_percent_number,
    format_split,
    format_table,
)
from snnprune.measure import Natural, Share

DENSE, RANDOM = "dense", "random"
Split = Literal["test", "validation", "train"]
SPLITS: tuple[Split, ...] = ("test", "validation", "train")
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The tickets of one method at one sparsity, one for each seed."""

    method: str
    asked: float
    """The sparsity that was asked for, in [0, 1)."""
    pruned: tuple[int, ...]
    """Weights that are zero, by seed."""
    prunable: tuple[int, ...]
    accuracies: tuple[float, ...]
    """In [0, 1], by seed; empty where nothing was labelled."""
    densities: Mapping[str, float]
    """Share of the weights kept, by weight key, mean over seeds."""
    firing_rates: Mapping[str, float]
    """Spikes per neuron per time step, by neuron name, mean over seeds."""

    @property
    def sparsity(self) -> float:
        """Pruned of prunable weights, of all seeds together."""
        return sum(self.pruned) / sum(self.prunable)

    def compute_mean(self) -> float | None:
        """Of the accuracies."""
        return statistics.fmean(self.accuracies) if self.accuracies else None

    def compute_deviation(self) -> float | None:
        """Sample standard deviation of the accuracies; None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True, kw_only=True)
class CurveSummary:
    """What runs of one recipe found."""

    split: Split
    """The images that the accuracies were measured on."""
    seeds: int
    """How many runs there are."""
    dense: CurvePoint | None
    points: tuple[CurvePoint, ...]
    """By method in the order of the runs, then by sparsity; without the dense network."""

    def list_methods(self) -> tuple[str, ...]:
        """In the order of the runs."""
        return tuple(dict.fromkeys(point.method for point in self.points))

    def list_sparsities(self) -> tuple[float, ...]:
        """The sparsities, increasing."""
        return tuple(sorted({point.asked for point in self.points}))

    def of(self, method: str) -> tuple[CurvePoint, ...]:
        """The points of a method by sparsity."""
        return tuple(point for point in self.points if point.method == method)


def summarize_runs(runs: Sequence[Iterable[Row]]) -> CurveSummary:
    """The tickets among the rows of `runs`, those of one method and sparsity brought together.

    Test accuracies where every run has some, otherwise validation accuracies, or training
    accuracies where there were no other images. Of two tickets of one run with the same method and
    the same sparsity asked, the last counts.
    """
    tickets = [[row for row in run if row["kind"] == "ticket"] for run in runs]
    split = _find_split(tickets)
    groups: dict[tuple[str, float], dict[int, Row]] = {}
    for number, rows in enumerate(tickets):
        for row in rows:
            groups.setdefault((row["method"], row["sparsity_asked"]), {})[number] = row
    points = [_make_point(*key, list(group.values()), split) for key, group in groups.items()]
    methods = list(dict.fromkeys(method for method, _ in groups))
    points.sort(key=lambda point: (methods.index(point.method), point.asked))
    return CurveSummary(
        split=split,
        seeds=len(tickets),
        dense=next((point for point in points if point.method == DENSE), None),
        points=tuple(point for point in points if point.method != DENSE),
    )


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """A `CurvePoint` for a report, with what follows from it."""

    method: str
    sparsity_asked: Share
    sparsity: Share
    pruned: Sequence[Natural]
    prunable: Sequence[Natural]
    accuracies: Sequence[Share]
    accuracy_mean: Share | None
    accuracy_deviation: float | None
    densities: Mapping[str, Share]
    firing_rates: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """A `CurveSummary` for a report: counts and accuracies by seed, mean and deviation beside."""

    accuracies_on: Split
    seeds: Natural
    dense: PointRow | None
    points: Sequence[PointRow]


def make_summary_row(summary: CurveSummary) -> SummaryRow:
    """Of what the runs found."""
    return SummaryRow(
        accuracies_on=summary.split,
        seeds=summary.seeds,
        dense=None if summary.dense is None else _make_point_row(summary.dense),
        points=[_make_point_row(point) for point in summary.points],
    )


def describe_curves(summary: CurveSummary) -> dict[str, Any]:
    """For a report."""
    return asdict(make_summary_row(summary))


def _make_point(method: str, asked: float, rows: Sequence[Row], split: Split) -> CurvePoint:
    accuracies = (_read_accuracy(row, split) for row in rows)
    return CurvePoint(
        method=method,
        asked=asked,
        pruned=tuple(row["pruned"] for row in rows),
        prunable=tuple(row["prunable"] for row in rows),
        accuracies=tuple(accuracy for accuracy in accuracies if accuracy is not None),
        densities=_average_by_name(
            {layer["weight"]: layer["kept"] / layer["weights"] for layer in row["layers"]}
            for row in rows
        ),
        firing_rates=_average_by_name(
            (_get_evaluation(row) or {}).get("firing_rates", {}) for row in rows
        ),
    )


def _read_accuracy(row: Row, split: Split) -> float | None:
    if split == "validation":
        return row["validation_accuracy"]
    found = row["test"] if split == "test" else _get_evaluation(row)
    return found["correct"] / found["labelled"] if found and found["labelled"] else None


def _get_evaluation(row: Row) -> Any:
    return row["test"] or row.get("measured")


def _find_split(runs: Sequence[Sequence[Row]]) -> Split:
    """Which images all runs have accuracies on."""
    for split in SPLITS[:2]:
        if all(any(_read_accuracy(row, split) is not None for row in rows) for rows in runs):
            return split
    known = any(_get_evaluation(row) for rows in runs for row in rows)
    return "train" if known else "validation"


def _average_by_name(given: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over those that have it, in the order of first appearance."""
    values: dict[str, list[float]] = {}
    for one in given:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: statistics.fmean(found) for name, found in values.items()}


def _make_point_row(point: CurvePoint) -> PointRow:
    return PointRow(
        method=point.method,
        sparsity_asked=point.asked,
        sparsity=point.sparsity,
        pruned=list(point.pruned),
        prunable=list(point.prunable),
        accuracies=list(point.accuracies),
        accuracy_mean=point.compute_mean(),
        accuracy_deviation=point.compute_deviation(),
        densities=dict(point.densities),
        firing_rates=dict(point.firing_rates),
    )


def make_accuracy_cells(summary: CurveSummary) -> list[list[str]]:
    """A head, then a row for each sparsity: it and the accuracy of each method, in percent."""
    points = {(point.method, point.asked): point for point in summary.points}
    rows = [
        [f"{format_percent_number(asked)}%"]
        + [
            _format_accuracy(points.get((method, asked)), summary)
            for method in summary.list_methods()
        ]
        for asked in summary.list_sparsities()
    ]
    return [["sparsity", *summary.list_methods()], *rows]


def format_dense_line(summary: CurveSummary) -> str:
    """The accuracy of the dense network, and what all accuracies are."""
    line = f"{format_split(summary.split)} accuracy (%), {_format_seeds(summary)}"
    if summary.dense is None:
        return line
    return f"dense {_format_accuracy(summary.dense, summary)}; {line}"


def _format_seeds(summary: CurveSummary) -> str:
    """How many runs an accuracy is the mean of."""
    if summary.seeds < 2:
        return "one seed"
    return f"mean ± standard deviation of {summary.seeds} seeds"


def format_markdown_table(summary: CurveSummary) -> str:
    """The accuracies as a Markdown table, the dense network below it."""
    titles, *body = make_accuracy_cells(summary)
    right = range(len(titles))
    text = (
        format_table(titles, body, right, escape=escape_with_backslashes, spaced=True)
        if body
        else ""
    )
    end = format_dense_line(summary)
    return "\n\n".join([*([text] if text else []), f"{end[0].upper()}{end[1:]}."]) + "\n"


def _format_accuracy(point: CurvePoint | None, summary: CurveSummary) -> str:
    """Mean and deviation in percent, with the number of seeds where it is not that of all."""
    if point is None or (mean := point.compute_mean()) is None:
        return "-"
    text = f"{100 * mean:.1f}"
    if (deviation := point.compute_deviation()) is not None:
        text += f" ± {100 * deviation:.1f}"
    seeds = len(point.accuracies)
    return text if seeds == summary.seeds else f"{text} (n={seeds})"
