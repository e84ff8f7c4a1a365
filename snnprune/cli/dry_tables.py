"""What a dry run looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from snnprune.checkpoint.naming import counted
from snnprune.cli.stages import clock
from snnprune.cli.tables import cell
from snnprune.escaping import printable
from snnprune.notation import in_percent

if TYPE_CHECKING:
    from snnprune.jobs.training.dry_run import DryRun

UNITS = ("bytes", "KB", "MB", "GB", "TB")


def shown(found: DryRun) -> list[RenderableType]:
    """The trainings of a run, then in lines what they are made of and what they take."""
    images = ", ".join(
        f"{'?' if count is None else f'{count:,}'} {split}" for split, count in found.images.items()
    )
    runs = f"{found.runs} runs, " if found.runs > 1 else ""
    return [
        _table(found),
        f"parameters {found.parameters:,}, prunable weights {found.prunable:,}",
        f"images {images}; {counted(found.steps_per_epoch, 'step')} an epoch",
        f"{runs}{counted(found.epochs, 'epoch')}, {counted(found.steps, 'step')} "
        f"of {found.seconds_per_step:.3g} s, "
        f"evaluated batches of {found.seconds_per_evaluated_batch:.3g} s",
        f"about {clock(found.seconds)} in all; peak memory {size(found.peak_bytes)}; "
        f"on disk states {size(found.state_bytes)}, results {size(found.result_bytes)}",
    ]


def shown_grid(found: Mapping[str, DryRun]) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name, then all together."""
    parts = ([printable(name), *shown(one), ""] for name, one in found.items())
    runs = found.values()
    disk = sum(one.state_bytes + one.result_bytes for one in runs)
    last = (
        f"all {len(found)}: {counted(sum(one.epochs for one in runs), 'epoch')}, about "
        f"{clock(sum(one.seconds for one in runs))}; on disk {size(disk)}"
    )
    return [*(item for part in parts for item in part), last]


def size(count: int) -> str:
    """Bytes as one reads them, 1 KB = 1000 bytes."""
    value = float(count)
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def _table(found: DryRun) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("training")
    for title in ("round", "sparsity", "remain", "epochs", "steps"):
        table.add_column(title, justify="right")
    for one in found.trainings:
        cells = (one.method, f"{one.round}", f"{in_percent(one.sparsity)}%", f"{one.kept:,}")
        table.add_row(*map(cell, (*cells, f"{one.epochs:,}", f"{one.steps:,}")))
    return table
