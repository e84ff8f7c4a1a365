"""What results look like on 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snnprune.escaping import printable

if TYPE_CHECKING:
    from snnprune.evaluation import Evaluation
    from snnprune.jobs.demo import Point
    from snnprune.jobs.layers import LayerRow

MAX_ROWS = 300  # of a table; a stranger's file may have any number of layers
MIN_NAME = 12  # columns that a name gets at least


def cell(text: str) -> Text:
    """Text that may come from a file."""
    return Text(printable(text))


def layer_table(rows: Sequence[LayerRow], width: int, *, criteria: bool = False) -> Table:
    """One line per layer, within `width` columns; long names are broken at their dots."""
    rates = any(row.input_rate is not None for row in rows)
    titles = ["shape", "weights", "kept", "pruned"]
    titles += ["input", "fires"] if rates else []
    titles += ["by"] if criteria else []
    body = [_layer_cells(row, rates=rates, criteria=criteria) for row in rows]
    columns = zip(titles, *body, strict=True)
    left = width - sum(2 + max(map(len, column)) for column in columns)
    table = _table()
    table.add_column("layer")
    for title in titles:
        table.add_column(title, justify="left" if title in ("shape", "by") else "right")
    for row, cells in list(zip(rows, body, strict=True))[:MAX_ROWS]:
        name = _broken(printable(row.weight.removesuffix(".weight")), max(left, MIN_NAME))
        table.add_row(Text(name), *map(Text, cells))
    if len(rows) > MAX_ROWS:
        table.add_row(f"... and {len(rows) - MAX_ROWS:,} more layers; --json has all")
    return table


def _layer_cells(row: LayerRow, *, rates: bool, criteria: bool) -> list[str]:
    cells = ["x".join(map(str, row.shape)), f"{row.weights:,}", f"{row.kept:,}"]
    cells.append(f"{row.sparsity:.1%}")
    cells += [_rate(row.input_rate), _rate(row.firing_rate)] if rates else []
    return cells + ([printable(row.criterion or "", 20)] if criteria else [])


def _broken(name: str, width: int) -> str:
    """`name` over as many lines as it takes, broken after dots where there are some."""
    if len(name) <= width:
        return name
    dot = name.rfind(".", 0, width)
    cut = dot + 1 if dot > 0 else width
    return f"{name[:cut]}\n{_broken(name[cut:], width)}"


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def link_table(rows: Sequence[LayerRow]) -> Table:
    """Which layer drives which neuron, and what stands between."""
    table = _table()
    for title in ("layer", "drives", "through"):
        table.add_column(title, overflow="fold")
    for row in rows[:MAX_ROWS]:
        name = row.weight.removesuffix(".weight")
        table.add_row(cell(name), cell(row.neuron or "-"), cell(", ".join(row.through) or "-"))
    return table


def firing_table(evaluation: Evaluation) -> Table:
    """Spikes per neuron per time step, by neuron."""
    table = _table()
    table.add_column("neuron", overflow="fold")
    table.add_column("firing rate", justify="right")
    for name, rate in evaluation.firing_rates.items():
        table.add_row(cell(name), cell(f"{rate:.4f}"))
    return table


def demo_table(points: Sequence[Point]) -> Table:
    """Test accuracy by criterion and repair (rows) and sparsity (columns)."""
    sparsities = sorted({point.sparsity for point in points})
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("criterion")
    table.add_column("repair")
    for sparsity in sparsities:
        table.add_column(f"{sparsity:.0%}", justify="right")
    for row in dict.fromkeys((point.criterion, point.repair) for point in points):
        by_sparsity = {p.sparsity: p for p in points if (p.criterion, p.repair) == row}
        table.add_row(*row, *(f"{by_sparsity[s].accuracy:.1%}" for s in sparsities))
    return table


def sparsity_line(totals: dict[str, int]) -> str:
    """How much is pruned, of the prunable weights and of everything."""
    pruned, prunable, parameters = totals["pruned"], totals["prunable"], totals["parameters"]
    return (
        f"pruned {pruned:,} of {prunable:,} weights: {pruned / prunable:.2%} "
        f"({pruned / parameters:.2%} of all {parameters:,} parameters)"
    )


def accuracy_line(
    evaluation: Evaluation, before: Evaluation | None = None, split: str = "test"
) -> str:
    """Accuracy and loss on the images of `split`, and what they were before."""
    if evaluation.accuracy is None or evaluation.loss is None:
        return f"{evaluation.samples:,} images without labels: no accuracy"
    line = f"accuracy {evaluation.accuracy:.2%}, loss {evaluation.loss:.3f}"
    if before is not None and before.accuracy is not None and before.loss is not None:
        line = (
            f"accuracy {before.accuracy:.2%} -> {evaluation.accuracy:.2%}, "
            f"loss {before.loss:.3f} -> {evaluation.loss:.3f}"
        )
    return f"{line} ({evaluation.labelled:,} {split} images)"


def fallback_lines(rows: Sequence[LayerRow]) -> list[str]:
    """Why some layers were scored by magnitude."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason is not None:
            reasons.setdefault(row.reason, []).append(row.weight.removesuffix(".weight"))
    return [
        f"by magnitude: {printable(', '.join(names))} ({reason})"
        for reason, names in reasons.items()
    ]


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3f}"
