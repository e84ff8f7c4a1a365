"""The commands that run a recipe: `train`, `imp` and `search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.flags import DataFlags, ShowFlags
from snnprune.cli.spreading import spread
from snnprune.errors import InputError, UsageError

if TYPE_CHECKING:
    from snnprune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LoopFlags(DataFlags):
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
        typer.Option(metavar="DIR", help="Run folder; by default runs/ and the recipe's name."),
    ] = None
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Instead of the recipe's.")
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Several runs, in DIR/seed-N, and their mean."),
    ] = None
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.")] = "auto"
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="One batch through; tell sizes and time, write nothing."),
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = (
        False
    )
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False

    def overrides(self) -> list[str]:
        """What the flags change in the recipe."""
        if self.seed is not None and self.seeds is not None:
            raise UsageError("either --seed or --seeds", hint="--seeds runs several")
        one = [f"seed={self.seed}", "seeds=[]"] if self.seed is not None else []
        several = [f"seeds=[{self.seeds}]"] if self.seeds is not None else []
        return [*(self.settings or []), *one, *several]


@spread
def train(loop: LoopFlags, show: ShowFlags) -> None:
    """Train a network from a recipe; with a section gradual, prune it on the way."""
    _run("train", loop, show)


@spread
def imp(loop: LoopFlags, show: ShowFlags) -> None:
    """Find winning tickets: prune in rounds, going back to early weights."""
    _run("imp", loop, show)


@spread
def search(loop: LoopFlags, show: ShowFlags) -> None:
    """Find sub-networks of untrained weights: train scores, keep the highest of each layer."""
    _run("search", loop, show)


def _run(command: str, flags: LoopFlags, show: ShowFlags) -> None:
    """Run a recipe by the loop of `command`, and show what came of it."""
    recipe = _recipe(command, flags)
    folder = _folder(command, recipe, flags)

    from snnprune.cli.console import Screen
    from snnprune.cli.run_tables import shown
    from snnprune.jobs.looping import LoopOptions
    from snnprune.jobs.loops import JOBS
    from snnprune.jobs.seeds import run_seeds

    screen = Screen(show)
    options = LoopOptions(
        command=command,
        recipe=recipe,
        out=folder,
        device=flags.device,
        data_root=flags.data_root,
        download=flags.download,
        force=flags.force,
        resume=flags.resume,
    )
    found = run_seeds(JOBS[command], options, screen.progress(), screen.say)
    done = "holds a finished run: nothing to do" if found.finished_before else None
    last = f"{folder} {done}" if done else f"wrote {folder}"
    screen.result(*shown(found.summary, screen.width), last, report=dict(found.report))


def _recipe(command: str, flags: LoopFlags) -> Recipe:
    """The recipe, with what the flags change in it."""
    from snnprune.recipe import load_recipe

    if flags.resume and flags.force:
        raise UsageError("either --resume or --force", hint="one continues a run, one replaces it")
    if flags.recipe is None and not flags.resume:
        raise UsageError("missing", field="--recipe", hint="snnprune recipes ls shows some")
    if flags.recipe is None and flags.out is None:
        raise UsageError("missing", field="--recipe", hint="or name a run: --resume --out DIR")
    run = ("gradual",) if command in ("train", "finetune") else (command,)
    return load_recipe(flags.recipe or _recipe_in(flags.out), flags.overrides(), run=run)


def _folder(command: str, recipe: Recipe, flags: LoopFlags) -> Path:
    """Where the run goes: as asked, as the recipe says, or in runs/."""
    if flags.out is not None:
        return flags.out
    if recipe.output.folder is not None:
        return Path(recipe.output.folder)
    name = Path(flags.recipe or "").stem
    return Path("runs") / (name if command == "train" else f"{name}-{command}")


def _recipe_in(folder: Path | None) -> str:
    """The recipe of the run to resume."""
    path = Path(folder or ".") / "recipe.yaml"
    if not path.is_file():
        raise InputError("holds no run to resume", file=folder, hint="name one that was started")
    return str(path)
