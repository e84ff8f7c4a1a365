"""What runs over several sparsities and seeds look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from snnprune.cli.tables import cell
from snnprune.curves import Summary, accuracy_cells, dense_line
from snnprune.escaping import printable

WIDEST = 22  # columns of a method; longer names are broken
BETWEEN = 2  # columns


def shown(summary: Summary, width: int) -> list[RenderableType]:
    """Accuracies within `width` columns: in tables where anything was pruned, then in a line."""
    return [*accuracy_tables(summary, width), printable(dense_line(summary))]


def shown_grid(summaries: Mapping[str, Summary], width: int) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name."""
    parts = ([printable(name), *shown(one, width), ""] for name, one in summaries.items())
    return [item for part in parts for item in part]


def accuracy_tables(summary: Summary, width: int) -> list[Table]:
    """Accuracies in percent by sparsity (rows) and method; several tables where one is too wide."""
    first, *others = zip(*accuracy_cells(summary), strict=True)
    return [_table([first, *some]) for some in _fitting(others, width - _width(first))]


def _fitting(columns: list[tuple[str, ...]], room: int) -> Iterator[list[tuple[str, ...]]]:
    """The columns in groups, each no wider than `room` if it has more than one."""
    group: list[tuple[str, ...]] = []
    for column in columns:
        if group and sum(map(_width, [*group, column])) > room:
            yield group
            group = []
        group.append(column)
    if group:
        yield group


def _width(column: tuple[str, ...]) -> int:
    return BETWEEN + min(WIDEST, max(len(cell(text)) for text in column))


def _table(columns: list[tuple[str, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, BETWEEN, 0, 0), pad_edge=False, show_edge=False)
    for head, *_ in columns:
        table.add_column(cell(head), justify="right", overflow="fold", max_width=WIDEST)
    for row in list(zip(*columns, strict=True))[1:]:
        table.add_row(*map(cell, row))
    return table
