"""The commands that run a recipe, `train`, `finetune`, `imp` and `search`, and what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.cli.progress import format_clock
from snnprune.cli.tables import make_cell
from snnprune.errors import format_count, format_percent_number, make_printable
from snnprune.jobs.train.options import (
    FinetuneFiles,
    FinetuneOptions,
    ImpOptions,
    RecipeOptions,
    SearchOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    from snnprune.cli.console import Screen
    from snnprune.jobs.train.dry_run import DryRun
    from snnprune.jobs.train.options import LoopOptions
    from snnprune.report.curves import CurveSummary

UNITS = ("bytes", "KB", "MB", "GB", "TB")
WIDEST = 22  # columns of a method; longer names are broken
BETWEEN = 2  # columns


@expand_options
def train(asked: TrainOptions, show: ShowOptions) -> None:
    """Train a network from a recipe; with a section gradual, prune it on the way."""
    _run_command(asked, show)


@expand_options
def finetune(asked: FinetuneOptions, show: ShowOptions) -> None:
    """Train a pruned checkpoint on, its masks held; with a teacher, learn from it too."""
    _run_command(asked, show, files=asked)


@expand_options
def imp(asked: ImpOptions, show: ShowOptions) -> None:
    """Find winning tickets: prune in rounds, going back to early weights."""
    _run_command(asked, show)


@expand_options
def search(asked: SearchOptions, show: ShowOptions) -> None:
    """Find sub-networks of untrained weights: train scores, keep the highest of each layer."""
    _run_command(asked, show)


def _run_command(
    asked: RecipeOptions, show: ShowOptions, files: FinetuneFiles | None = None
) -> None:
    """Run a recipe by the loop of its command, and show what came of it."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.train.recipes import note_code, read_loop

    options, code = read_loop(asked)
    screen = Screen(show)
    if not asked.dry_run and not note_code(options.out, code):
        screen.say("the code of this run cannot be noted: --resume will need --trust-recipe")
    if options.recipe.grid is not None:
        _run_grid(options, files, screen, dry=asked.dry_run)
    elif asked.dry_run:
        _try_loop(options, files, screen)
    else:
        _run_loop(options, files, screen)


def _run_loop(options: LoopOptions, files: FinetuneFiles | None, screen: Screen) -> None:
    """Run it."""
    from snnprune.jobs.train.finetune import finetune_checkpoint
    from snnprune.jobs.train.sweeps import run_seeds
    from snnprune.jobs.train.train import JOBS

    job = JOBS[options.command] if files is None else partial(finetune_checkpoint, files)
    found = run_seeds(job, options, screen.progress(), screen.say)
    last = _format_last_line(options.out, finished_before=found.finished_before)
    screen.result(*render_summary(found.summary, screen.width), last, report=dict(found.report))


def _format_last_line(folder: Path, *, finished_before: bool) -> str:
    """The line that ends a result."""
    return f"{folder} holds a finished run: nothing to do" if finished_before else f"wrote {folder}"


def _run_grid(
    options: LoopOptions, files: FinetuneFiles | None, screen: Screen, *, dry: bool
) -> None:
    """Run, or try, every network of the recipe's grid on every data set."""
    from snnprune.jobs.train.recipes import require_one_pair
    from snnprune.jobs.train.sweeps import dry_grid, run_grid
    from snnprune.jobs.train.train import JOBS

    if files is not None:
        require_one_pair(options.recipe, options.command)
    if dry:
        tried, report = dry_grid(options)
        last = f"nothing was written to {options.out}"
        screen.result(*render_dry_grid(tried), last, report=report)
        return
    found = run_grid(JOBS[options.command], options, screen.progress(), screen.say)
    summaries = {name: sweep.summary for name, sweep in found.runs.items()}
    last = _format_last_line(options.out, finished_before=found.finished_before)
    tables = render_summaries(summaries, screen.width)
    screen.result(*tables, last, report=dict(found.report))


def _try_loop(options: LoopOptions, files: FinetuneFiles | None, screen: Screen) -> None:
    """Tell what it would do and take."""
    from snnprune.jobs.train.dry_run import dry_run

    found, report = dry_run(options, files)
    screen.result(*render_dry_run(found), f"nothing was written to {options.out}", report=report)


def render_dry_run(found: DryRun) -> list[RenderableType]:
    """The trainings of a run, then in lines what they are made of and what they take."""
    images = ", ".join(
        f"{'?' if count is None else f'{count:,}'} {split}" for split, count in found.images.items()
    )
    runs = f"{found.runs} runs, " if found.runs > 1 else ""
    return [
        _make_dry_table(found),
        f"parameters {found.parameters:,}, prunable weights {found.prunable:,}",
        f"samples {images}; {format_count(found.steps_per_epoch, 'step')} an epoch",
        f"{runs}{format_count(found.epochs, 'epoch')}, {format_count(found.steps, 'step')} "
        f"of {found.seconds_per_step:.3g} s, "
        f"evaluated batches of {found.seconds_per_evaluated_batch:.3g} s",
        f"about {format_clock(found.seconds)} in all; peak memory {format_size(found.peak_bytes)}; "
        f"on disk states {format_size(found.state_bytes)}, "
        f"results {format_size(found.result_bytes)}",
    ]


def render_dry_grid(found: Mapping[str, DryRun]) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name, then all together."""
    parts = ([make_printable(name), *render_dry_run(one), ""] for name, one in found.items())
    runs = found.values()
    disk = sum(one.state_bytes + one.result_bytes for one in runs)
    last = (
        f"all {len(found)}: {format_count(sum(one.epochs for one in runs), 'epoch')}, about "
        f"{format_clock(sum(one.seconds for one in runs))}; on disk {format_size(disk)}"
    )
    return [*(item for part in parts for item in part), last]


def format_size(count: int) -> str:
    """Bytes as one reads them, 1 KB = 1000 bytes."""
    value = float(count)
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def _make_dry_table(found: DryRun) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("training")
    for title in ("round", "sparsity", "remain", "epochs", "steps"):
        table.add_column(title, justify="right")
    for one in found.trainings:
        cells = (
            one.method,
            f"{one.round}",
            f"{format_percent_number(one.sparsity)}%",
            f"{one.kept:,}",
        )
        table.add_row(*map(make_cell, (*cells, f"{one.epochs:,}", f"{one.steps:,}")))
    return table


def render_summary(summary: CurveSummary, width: int) -> list[RenderableType]:
    """Accuracies within `width` columns: in tables where anything was pruned, then in a line."""
    from snnprune.report.curves import format_dense_line

    return [*make_accuracy_tables(summary, width), make_printable(format_dense_line(summary))]


def render_summaries(summaries: Mapping[str, CurveSummary], width: int) -> list[RenderableType]:
    """The same for several networks and data sets, each below its name."""
    parts = (
        [make_printable(name), *render_summary(one, width), ""] for name, one in summaries.items()
    )
    return [item for part in parts for item in part]


def make_accuracy_tables(summary: CurveSummary, width: int) -> list[Table]:
    """Accuracies in percent by sparsity (rows) and method; several tables where one is too wide."""
    from snnprune.report.curves import make_accuracy_cells

    first, *others = zip(*make_accuracy_cells(summary), strict=True)
    return [
        _make_accuracy_table([first, *some])
        for some in _group_columns(others, width - _measure_width(first))
    ]


def _group_columns(columns: list[tuple[str, ...]], room: int) -> Iterator[list[tuple[str, ...]]]:
    """The columns in groups, each no wider than `room` if it has more than one."""
    group: list[tuple[str, ...]] = []
    for column in columns:
        if group and sum(map(_measure_width, [*group, column])) > room:
            yield group
            group = []
        group.append(column)
    if group:
        yield group


def _measure_width(column: tuple[str, ...]) -> int:
    return BETWEEN + min(WIDEST, max(len(make_cell(text)) for text in column))


def _make_accuracy_table(columns: list[tuple[str, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, BETWEEN, 0, 0), pad_edge=False, show_edge=False)
    for head, *_ in columns:
        table.add_column(make_cell(head), justify="right", overflow="fold", max_width=WIDEST)
    for row in list(zip(*columns, strict=True))[1:]:
        table.add_row(*map(make_cell, row))
    return table
