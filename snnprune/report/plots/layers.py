"""What happens in each layer and each neuron as a network gets sparser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from snnprune.report.curves import CurvePoint, CurveSummary
from snnprune.report.plots.heat import HeatPanel, plot_heat
from snnprune.text import format_percent_number, layer_name


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
