"""`train`."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import DataFlags, ShowFlags
from snnprune.cli.spreading import spread


@spread
def train(
    data: DataFlags,
    show: ShowFlags,
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Built-in name or YAML file.")],
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
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Train a network from a recipe."""
    from snnprune.recipe import load_recipe

    overrides = [*(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    loaded = load_recipe(recipe, overrides)

    from snnprune.cli.console import Screen
    from snnprune.cli.tables import accuracy_line
    from snnprune.jobs.train import TrainOptions, train_recipe

    screen = Screen(show)
    options = TrainOptions(
        recipe=loaded,
        out=out or Path("runs") / Path(recipe).stem,
        device=device,
        data_root=data.data_root,
        download=data.download,
        force=force,
    )
    found = train_recipe(options, screen.progress())
    lines = [accuracy_line(found.test)] if found.test else []
    screen.result(*lines, f"wrote {options.out}/model.safetensors", report=found.report)
