"""What is lost as one layer after another is pruned alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from snnprune.notation import in_percent
from snnprune.plots.heat import Panel, plot_heat


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
    columns = [in_percent(sparsity) for sparsity in sparsities]
    plot_heat(
        paths,
        [
            Panel(title=title, columns=columns, rows=rows)
            for title, rows in measures.items()
            if any(value is not None for row in rows.values() for value in row)
        ],
        measure="%",
        conditions=conditions,
        text=lambda value: f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}",
    )
