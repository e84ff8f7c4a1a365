"""`train`."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import DataFlags, ShowFlags
from snnprune.cli.spreading import spread
from snnprune.errors import InputError, UsageError


@spread
def train(
    data: DataFlags,
    show: ShowFlags,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Built-in name or YAML file; the run's with --resume."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a setting; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder; runs/RECIPE by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Instead of the recipe's.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Train a network from a recipe."""
    from snnprune.recipe import load_recipe

    if resume and force:
        raise UsageError("either --resume or --force", hint="one continues a run, one replaces it")
    folder = out or _usual_folder(recipe)
    overrides = [*(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    loaded = load_recipe(recipe or _recipe_in(folder, resume=resume), overrides)

    from snnprune.cli.console import Screen
    from snnprune.cli.tables import accuracy_line
    from snnprune.jobs.train import TrainOptions, train_recipe

    screen = Screen(show)
    options = TrainOptions(
        recipe=loaded,
        out=folder,
        device=device,
        data_root=data.data_root,
        download=data.download,
        force=force,
        resume=resume,
    )
    found = train_recipe(options, screen.progress(), screen.say)
    if found.finished_before:
        screen.result(f"{options.out} holds a finished run: nothing to do", report=found.report)
        return
    lines = [accuracy_line(found.test)] if found.test else []
    screen.result(*lines, f"wrote {options.out}/model.safetensors", report=found.report)


def _usual_folder(recipe: str | None) -> Path:
    if recipe is None:
        raise UsageError("missing", field="--recipe", hint="or name a run: --resume --out DIR")
    return Path("runs") / Path(recipe).stem


def _recipe_in(folder: Path, *, resume: bool) -> str:
    """The recipe of the run to resume."""
    if not resume:
        raise UsageError("missing", field="--recipe", hint="snnprune recipes ls shows some")
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise InputError("holds no run to resume", file=folder, hint="name one that was started")
    return str(path)
