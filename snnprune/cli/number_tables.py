"""Names with numbers beside them, within the width of the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from snnprune.cli.tables import MAX_ROWS, MIN_NAME, broken, cell, plain_table
from snnprune.escaping import printable
from snnprune.notation import layer_name

NAME, NUMBER = 16, 8  # columns that a name and a percentage take


def abreast(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[Table]:
    """Tables of as many columns as there is room for beside the names."""
    most = max(1, (width - NAME) // NUMBER)
    for start in range(1, len(titles), most):
        some = slice(start, start + most)
        yield number_table(
            [titles[0], *titles[some]], [[row[0], *row[some]] for row in rows], width
        )


def number_table(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table of names with numbers beside them, within `width`; long names are broken."""
    first, *others = titles
    columns = list(zip(titles, *rows, strict=True))[1:]
    left = width - sum(2 + max(map(len, column)) for column in columns)
    table = plain_table()
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    for name, *numbers in rows[:MAX_ROWS]:
        table.add_row(Text(broken(printable(name), max(left, MIN_NAME))), *map(cell, numbers))
    if len(rows) > MAX_ROWS:
        table.add_row(f"... and {len(rows) - MAX_ROWS:,} more; --json has all")
    return table


def uncounted_lines(layers: Sequence[str]) -> list[str]:
    """Which layers no table has."""
    names = ", ".join(layer_name(layer) for layer in layers)
    return [f"not counted, as no neuron is known behind: {names}"] if layers else []
