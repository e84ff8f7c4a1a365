"""What a checkpoint weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.tables import plain_table

if TYPE_CHECKING:
    from snnprune.exporting import Sizes


def size_table(sizes: Sizes, values: str) -> Table:
    """Bytes of the tensors as they are, compressed and packed."""
    precision = "" if values == "exact" else f" ({values})"
    rows = {
        "dense": sizes.dense,
        "gzip": sizes.gzip,
        "zstd": sizes.zstd,
        f"packed{precision}": sizes.packed,
        "entropy bound": sizes.bound,
    }
    table = plain_table()
    table.add_column("tensors")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("of dense", justify="right", no_wrap=True)
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / max(sizes.dense, 1):.1%}")
    return table
