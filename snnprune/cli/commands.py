"""All commands, in the order in which people need them."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from types import FrameType

import typer

from snnprune.cli.examples import format_epilog
from snnprune.errors import PeerError, StoppedError, UsageError
from snnprune.runtime import read_process_rank

# the commands that several processes do together
SHARING = ("calibrate", "eval", "train", "finetune", "imp", "search")
PATIENCE, APART = 3.0, 0.5  # seconds; torchrun ends the others within a tenth of one
PAUSE = 0.05  # seconds between two looks whether the signal came


class _EndedError(BaseException):
    """SIGTERM came while this process waited."""


def require_sharing(command: str) -> None:
    """Refuse a command that each process would do again, all writing to one place.

    Raises:
        UsageError: there are several processes, and they cannot share it.
    """
    if read_process_rank().size > 1 and command not in SHARING:
        raise UsageError(
            f"{command} runs in one process",
            hint=f"start it without torchrun, which is for {', '.join(SHARING)}",
        )


def wait_to_speak(error: BaseException) -> bool:
    """Whether this process is the one to tell of its fault.

    The first does at once. The others, and one that only met that another is gone, wait to be
    ended: torchrun does so as soon as any process has failed. So a fault that all of them meet is
    told once, and one that only one of them meets is told by that one.
    """
    here = read_process_rank()
    if here.size == 1 or (here.first and not isinstance(error, PeerError)):
        return True
    if isinstance(error, StoppedError):  # all have agreed to stop
        return False
    return not _wait_for_end(PATIENCE + APART * here.local_rank)


def _wait_for_end(seconds: float) -> bool:
    before = signal.signal(signal.SIGTERM, _raise_ended)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
    except _EndedError:
        return True
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


def _raise_ended(_: int, __: FrameType | None) -> None:
    raise _EndedError


COMMANDS = {
    "inspect": "checkpoints:inspect",
    "calibrate": "checkpoints:calibrate",
    "score": "checkpoints:score",
    "prune": "checkpoints:prune",
    "eval": "checkpoints:evaluate",
    "diff": "comparing:diff",
    "check": "checkpoints:check",
    "sensitivity": "comparing:sensitivity",
    "export": "checkpoints:export",
    "train": "training:train",
    "finetune": "training:finetune",
    "imp": "training:imp",
    "search": "training:search",
    "theory": "theory:theory_app",
    "analyze": "theory:analyze_app",
    "recipes": "recipes:app",
    "chips": "chips:app",
    "demo": "checkpoints:demo",
    "env": "checkpoints:env",
}
"""Where each is, in the order in which people need them."""


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The app with these commands: one alone starts in half the time of all."""
    app = typer.Typer(
        name="snnprune",
        help="Prune trained spiking neural networks, by what a weight does to a spike.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(f"snnprune.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            for one in found.registered_commands:
                own = one.name or getattr(one.callback, "__name__", "")
                one.epilog = format_epilog(f"{name} {own}")
            app.add_typer(found, name=name)
        else:
            app.command(name, epilog=format_epilog(name))(found)
    app.callback(invoke_without_command=True)(version_option)
    return app


def version_option(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    """Prune trained spiking neural networks, by what a weight does to a spike."""
    context.with_resource(contextlib.redirect_stdout(sys.stdout))  # gives back what a screen takes
    if version:
        from snnprune.runtime import __version__

        typer.echo(f"snnprune {__version__}")
        raise typer.Exit
    require_sharing(context.invoked_subcommand or "")
