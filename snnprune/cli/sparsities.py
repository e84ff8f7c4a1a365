"""What came of several sparsities, on 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.tables import cell, plain_table
from snnprune.notation import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snnprune.jobs.pruning.pruned import Pruned
    from snnprune.jobs.pruning.targeting import Search


def sparsity_table(files: Sequence[Pruned]) -> Table:
    """One line per file."""
    table = plain_table()
    for title in ("sparsity", "accuracy", "kept weights"):
        table.add_column(title, justify="right")
    table.add_column("file", overflow="fold")
    for one in files:
        accuracy = one.after.accuracy if one.after else None
        table.add_row(
            f"{one.sparsity:g}",
            percent(accuracy, 2),
            f"{one.totals['kept']:,}",
            cell(one.place.out.name),
        )
    return table


def tries_table(search: Search) -> Table:
    """One line per sparsity that was tried, in the order of the tries."""
    table = plain_table()
    table.add_column("tried", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("held")
    for one in search.tries:
        table.add_row(f"{one.sparsity:g}", f"{one.accuracy:.2%}", "yes" if one.held else "no")
    return table


def search_line(search: Search) -> str:
    """What was looked for, on which images."""
    return (
        f"looked for {search.target:.2%} on {search.images:,} {search.split} images, where the "
        f"dense network has {search.dense:.2%}: {len(search.tries)} tries"
    )
