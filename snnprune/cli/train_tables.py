"""What runs over several sparsities and seeds look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from snnprune.cli.progress import clock
from snnprune.cli.tables import cell
from snnprune.report.curves import Summary, accuracy_cells, dense_line
from snnprune.text import counted, in_percent, printable

if TYPE_CHECKING:
    from snnprune.jobs.train.dry_run import DryRun


UNITS = ("bytes", "KB", "MB", "GB", "TB")


def show_dry_run(found: DryRun) -> list[RenderableType]:
    """The trainings of a run, then in lines what they are made of and what they take."""
    images = ", ".join(
        f"{'?' if count is None else f'{count:,}'} {split}" for split, count in found.images.items()
    )
    runs = f"{found.runs} runs, " if found.runs > 1 else ""
    return [
        _dry_table(found),
        f"parameters {found.parameters:,}, prunable weights {found.prunable:,}",
        f"images {images}; {counted(found.steps_per_epoch, 'step')} an epoch",
        f"{runs}{counted(found.epochs, 'epoch')}, {counted(found.steps, 'step')} "
        f"of {found.seconds_per_step:.3g} s, "
        f"evaluated batches of {found.seconds_per_evaluated_batch:.3g} s",
        f"about {clock(found.seconds)} in all; peak memory {size(found.peak_bytes)}; "
        f"on disk states {size(found.state_bytes)}, results {size(found.result_bytes)}",
    ]


def show_dry_grid(found: Mapping[str, DryRun]) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name, then all together."""
    parts = ([printable(name), *show_dry_run(one), ""] for name, one in found.items())
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


def _dry_table(found: DryRun) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("training")
    for title in ("round", "sparsity", "remain", "epochs", "steps"):
        table.add_column(title, justify="right")
    for one in found.trainings:
        cells = (one.method, f"{one.round}", f"{in_percent(one.sparsity)}%", f"{one.kept:,}")
        table.add_row(*map(cell, (*cells, f"{one.epochs:,}", f"{one.steps:,}")))
    return table


WIDEST = 22  # columns of a method; longer names are broken
BETWEEN = 2  # columns


def show_summary(summary: Summary, width: int) -> list[RenderableType]:
    """Accuracies within `width` columns: in tables where anything was pruned, then in a line."""
    return [*accuracy_tables(summary, width), printable(dense_line(summary))]


def show_summaries(summaries: Mapping[str, Summary], width: int) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name."""
    parts = ([printable(name), *show_summary(one, width), ""] for name, one in summaries.items())
    return [item for part in parts for item in part]


def accuracy_tables(summary: Summary, width: int) -> list[Table]:
    """Accuracies in percent by sparsity (rows) and method; several tables where one is too wide."""
    first, *others = zip(*accuracy_cells(summary), strict=True)
    return [_accuracy_table([first, *some]) for some in _fitting(others, width - _width(first))]


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


def _accuracy_table(columns: list[tuple[str, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, BETWEEN, 0, 0), pad_edge=False, show_edge=False)
    for head, *_ in columns:
        table.add_column(cell(head), justify="right", overflow="fold", max_width=WIDEST)
    for row in list(zip(*columns, strict=True))[1:]:
        table.add_row(*map(cell, row))
    return table
