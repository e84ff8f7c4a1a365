"""All commands, in the order in which people need them."""

import contextlib
import sys

import typer

from snnprune.cli import (
    analyzing,
    checking,
    checkpoints,
    comparing,
    demo,
    environment,
    exporting,
    pruning,
    recipes,
    theory,
    training,
)
from snnprune.cli.peers import require_sharing

app = typer.Typer(
    name="snnprune",
    help="Prune trained spiking neural networks, by what a weight does to a spike.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect")(checkpoints.inspect)
app.command("calibrate")(checkpoints.calibrate)
app.command("score")(pruning.score)
app.command("prune")(pruning.prune)
app.command("eval")(checkpoints.evaluate)
app.command("diff")(comparing.diff)
app.command("check")(checking.check)
app.command("sensitivity")(comparing.sensitivity)
app.command("export")(exporting.export)
app.command("train")(training.train)
app.command("finetune")(training.finetune)
app.command("imp")(training.imp)
app.command("search")(training.search)
app.add_typer(theory.app, name="theory")
app.add_typer(analyzing.app, name="analyze")
app.add_typer(recipes.app, name="recipes")
app.command("demo")(demo.demo)
app.command("env")(environment.env)


@app.callback(invoke_without_command=True)
def version_option(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    """Prune trained spiking neural networks, by what a weight does to a spike."""
    context.with_resource(contextlib.redirect_stdout(sys.stdout))  # gives back what a screen takes
    if version:
        from snnprune import __version__

        typer.echo(f"snnprune {__version__}")
        raise typer.Exit
    require_sharing(context.invoked_subcommand or "")
