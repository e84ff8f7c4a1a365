"""The commands that run a recipe: `train`, `finetune`, `imp` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.cli.flags import ShowOptions
from snnprune.cli.options import expand_options
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
    from snnprune.jobs.train.looping import LoopOptions


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
    from snnprune.jobs.train.asking import note_code, read_loop

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
    from snnprune.cli.train_tables import render_summary
    from snnprune.jobs.train.loops import job_of
    from snnprune.jobs.train.seeds import run_seeds

    job = job_of(options.command, files)
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
    from snnprune.cli import train_tables
    from snnprune.jobs.train.grids import dry_grid, run_grid
    from snnprune.jobs.train.loops import job_of
    from snnprune.jobs.train.recipes import require_one_pair

    if files is not None:
        require_one_pair(options.recipe, options.command)
    if dry:
        tried, report = dry_grid(options)
        last = f"nothing was written to {options.out}"
        screen.result(*train_tables.render_dry_grid(tried), last, report=report)
        return
    found = run_grid(job_of(options.command), options, screen.progress(), screen.say)
    summaries = {name: sweep.summary for name, sweep in found.runs.items()}
    last = _format_last_line(options.out, finished_before=found.finished_before)
    tables = train_tables.render_summaries(summaries, screen.width)
    screen.result(*tables, last, report=dict(found.report))


def _try_loop(options: LoopOptions, files: FinetuneFiles | None, screen: Screen) -> None:
    """Tell what it would do and take."""
    from snnprune.cli.train_tables import render_dry_run
    from snnprune.jobs.train.dry_run import dry_run

    found, report = dry_run(options, files)
    screen.result(*render_dry_run(found), f"nothing was written to {options.out}", report=report)
