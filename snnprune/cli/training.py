"""The commands that run a recipe: `train`, `finetune`, `imp` and `search`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.flags import ShowFlags, TrustFlag
from snnprune.cli.options import expand_options
from snnprune.errors import InputError, UsageError
from snnprune.jobs.targets.options import TEST_DATA_HELP, DataFolderOptions
from snnprune.jobs.train.options import FinetuneFiles

if TYPE_CHECKING:
    from snnprune.cli.console import Screen
    from snnprune.jobs.consent import NamedCode
    from snnprune.jobs.train.looping import LoopOptions
    from snnprune.recipe.schema import Recipe


class AllowedChange(StrEnum):
    """What a run was made with, beside its recipe."""

    TORCH = "torch"
    SNNPRUNE = "snnprune"
    DEVICE = "device"
    PROCESSES = "processes"


@dataclass(frozen=True, kw_only=True)
class LoopFlags(DataFolderOptions):
    """Which recipe is run, and where."""

    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Built-in name or YAML file; the run's with --resume."),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a setting; repeatable."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run folder; by default runs/ and the recipe's name.",
            readable=False,
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Instead of the recipe's.")
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Several runs, in DIR/seed-N, and their mean."),
    ] = None
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.")] = "auto"
    test_data: Annotated[str | None, typer.Option(metavar="DATA", help=TEST_DATA_HELP)] = None
    eval_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Validation images: as data.evaluation.")
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="One batch through; tell sizes and time, write nothing."),
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = (
        False
    )
    allow_change: Annotated[
        list[AllowedChange] | None,
        typer.Option(help="Resume although this is another one; repeatable."),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False
    trust_recipe: TrustFlag = False

    def list_overrides(self) -> list[str]:
        """What the flags change in the recipe."""
        if self.seed is not None and self.seeds is not None:
            raise UsageError("either --seed or --seeds", hint="--seeds runs several")
        one = [f"seed={self.seed}", "seeds=[]"] if self.seed is not None else []
        several = [f"seeds=[{self.seeds}]"] if self.seeds is not None else []
        others = {"data.test": self.test_data, "data.evaluation": self.eval_data}
        named = [f"{key}={json.dumps(name)}" for key, name in others.items() if name is not None]
        return [*(self.settings or []), *one, *several, *named]


@expand_options
def train(loop: LoopFlags, show: ShowFlags) -> None:
    """Train a network from a recipe; with a section gradual, prune it on the way."""
    _run_command("train", loop, show)


@expand_options
def finetune(files: FinetuneFiles, loop: LoopFlags, show: ShowFlags) -> None:
    """Train a pruned checkpoint on, its masks held; with a teacher, learn from it too."""
    _run_command("finetune", loop, show, files)


@expand_options
def imp(loop: LoopFlags, show: ShowFlags) -> None:
    """Find winning tickets: prune in rounds, going back to early weights."""
    _run_command("imp", loop, show)


@expand_options
def search(loop: LoopFlags, show: ShowFlags) -> None:
    """Find sub-networks of untrained weights: train scores, keep the highest of each layer."""
    _run_command("search", loop, show)


def _run_command(
    command: str, flags: LoopFlags, show: ShowFlags, files: FinetuneFiles | None = None
) -> None:
    """Run a recipe by the loop of `command`, and show what came of it."""
    recipe = _load_recipe(command, flags)
    folder = _choose_folder(command, recipe, flags)
    code = _check_consent(recipe, folder, flags)

    from snnprune.cli.console import Screen
    from snnprune.jobs.train.looping import LoopOptions

    screen = Screen(show)
    if not flags.dry_run:
        _remember(folder, code, screen)
    options = LoopOptions(
        command=command,
        recipe=recipe,
        out=folder,
        device=flags.device,
        data_root=flags.data_root,
        download=flags.download,
        force=flags.force,
        resume=flags.resume,
        allowed=tuple(flags.allow_change or ()),
    )
    if recipe.grid is not None:
        _run_grid(options, files, screen, dry=flags.dry_run)
    elif flags.dry_run:
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


def _check_consent(recipe: Recipe, folder: Path, flags: LoopFlags) -> tuple[NamedCode, ...]:
    """The code that the recipe names; what the user has not agreed to is refused."""
    from snnprune.jobs.consent import find_code, find_typed_code, read_record, require_consent

    code = find_code(recipe)
    require_consent(
        code,
        file=flags.recipe or _find_recipe(flags.out),
        typed=find_typed_code(flags.list_overrides(), code),
        trusted=flags.trust_recipe,
        record=read_record(folder) if flags.resume else {},
    )
    return code


def _remember(folder: Path, code: tuple[NamedCode, ...], screen: Screen) -> None:
    """Note what the run runs, so that it can be continued without asking."""
    from snnprune.jobs.consent import remember
    from snnprune.runtime import read_process_rank

    if read_process_rank().first and not remember(folder, code):
        screen.say("the code of this run cannot be noted: --resume will need --trust-recipe")


def _load_recipe(command: str, flags: LoopFlags) -> Recipe:
    """The recipe, with what the flags change in it."""
    from snnprune.jobs.train.recipes import name_file_in_errors, require_names
    from snnprune.recipe.loading import load_recipe

    if flags.resume and flags.force:
        raise UsageError("either --resume or --force", hint="one continues a run, one replaces it")
    if flags.allow_change and not flags.resume:
        raise UsageError("is for --resume", field="--allow-change", hint="a new run needs none")
    if flags.resume and flags.dry_run:
        raise UsageError("either --resume or --dry-run", hint="the one tries a run from its start")
    if flags.recipe is None and not flags.resume:
        raise UsageError("missing", field="--recipe", hint="snnprune recipes ls shows some")
    if flags.recipe is None and flags.out is None:
        raise UsageError("missing", field="--recipe", hint="or name a run: --resume --out DIR")
    run = ("gradual",) if command == "train" else (command,)
    file, overrides = flags.recipe or _find_recipe(flags.out), flags.list_overrides()
    recipe = load_recipe(file, overrides, run=run)
    if not overrides:  # which are not the file's
        with name_file_in_errors(str(file)):
            require_names(recipe)
    return recipe


def _choose_folder(command: str, recipe: Recipe, flags: LoopFlags) -> Path:
    """Where the run goes: as asked, as the recipe says, or in runs/."""
    if flags.out is not None:
        return flags.out
    if recipe.output.folder is not None:
        return Path(recipe.output.folder)
    name = Path(flags.recipe or "").stem
    return Path("runs") / (name if command == "train" else f"{name}-{command}")


def _find_recipe(folder: Path | None) -> str:
    """The recipe of the run to resume."""
    path = Path(folder or ".") / "recipe.yaml"
    if not path.is_file():
        raise InputError("holds no run to resume", file=folder, hint="name one that was started")
    return str(path)
