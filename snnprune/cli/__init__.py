"""The command line: parse, one call, show. The only place where errors become text and codes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import typer
from typer.main import get_command

from snnprune.cli.commands import COMMANDS, make_app, wait_to_speak
from snnprune.cli.completion import VARIABLE
from snnprune.cli.streams import STDERR, ReaderLeftError, claim_stdout
from snnprune.errors import (
    InputError,
    MemoryExhaustedError,
    OutputError,
    SnnpruneError,
    StoppedError,
    UsageError,
    convert_torch_error,
    format_json_line,
    make_printable,
)
from snnprune.plugins.waiting import watch_user_code
from snnprune.runtime import read_process_rank

__all__ = ["main", "run_app", "run_command"]

BUG, INTERRUPTED, TERMINATED = 1, 130, 143
INSTALLERS = (["--install-completion"], ["--show-completion"])
RESERVE = 2**22  # bytes to tell in that there is no memory left
LIMIT = 2000  # characters of one error line


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `snnprune` and leave the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if VARIABLE in os.environ or words[:1] in INSTALLERS:
        # a shell asks what fits, or how to ask: typer answers, and ends the process
        run_command(words, prog_name="snnprune")
    # torch reads it at its first tensor: pages of 2 MiB in place of 4 KiB for large ones
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    claim_stdout()
    with report_workers_once():
        code = run_app(run_command, words)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nobody is left to take what `run_app` raises
    with contextlib.suppress(OutputError, ReaderLeftError):
        sys.stdout.flush()
        sys.stderr.flush()
    sys.stdout = sys.stderr  # what a user's code prints at exit is no result either
    if read_process_rank().size > 1:
        os._exit(code)  # threads of gloo that outlive the interpreter would abort it
    sys.exit(code)


def run_command(arguments: list[str], **settings: Any) -> Any:
    """The command that is asked for; an app that is called would change `sys.excepthook`."""
    asked = arguments[:1] if arguments[:1] and arguments[0] in COMMANDS else COMMANDS
    return _make_command(tuple(asked))(arguments, **settings)


@functools.cache
def _make_command(names: tuple[str, ...]) -> Any:
    """What typer makes of these commands, once for whoever runs many in one process."""
    return get_command(make_app(names))


class _TerminatedError(BaseException):
    """SIGTERM; no Exception, so that nobody takes it for a fault of a user's function."""


def run_app(app: Callable[..., Any], arguments: list[str]) -> int:
    """Run the app on `arguments` and return its exit code; every failure has been told then.

    `app` is what Typer makes a command of, or that command: a Typer that is called puts its own
    `sys.excepthook` in place of another.
    """
    signal.signal(signal.SIGTERM, _terminate)
    out, reserve = sys.stdout, [bytearray(RESERVE)]

    def end(error: SnnpruneError) -> None:
        with contextlib.redirect_stdout(out):  # the command has taken it, and does not give it back
            _print_error(error, error, arguments)

    try:
        with watch_user_code(
            _say_nothing if _is_flag_set(arguments, "q", "--quiet") else _say, end
        ):
            code = app(arguments, prog_name="snnprune", standalone_mode=False)
        sys.stdout.flush()
        return _handle_interrupt() if code == INTERRUPTED else code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _handle_interrupt()
    except _TerminatedError:
        return TERMINATED
    except ReaderLeftError:
        return 0
    except BaseException as error:  # a user's code may raise anything
        reserve.clear()
        return _handle_any_error(error, arguments)


@contextlib.contextmanager
def report_workers_once() -> Iterator[None]:
    """In the block it is told once that a process that loads data is gone.

    Torch raises it again where a loader is taken down, and Python shows what is raised there. What
    breaks off in a process that ends while it hands on a tensor is none of the user's concern.
    """
    before, uncaught, process = sys.unraisablehook, sys.excepthook, os.getpid()

    def tell(raised: sys.UnraisableHookArgs) -> None:
        if raised.exc_value is None or convert_torch_error(raised.exc_value) is None:
            before(raised)

    def tell_uncaught(kind: type[BaseException], *raised: Any) -> None:
        if os.getpid() == process or not issubclass(kind, ConnectionError):
            uncaught(kind, *raised)

    sys.unraisablehook, sys.excepthook = tell, tell_uncaught
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = before, uncaught


def _handle_interrupt() -> int:
    if read_process_rank().first:
        _say("interrupted: what was under way is not written")
    return INTERRUPTED


def _handle_any_error(error: BaseException, arguments: list[str]) -> int:
    try:
        return _handle_error(error, arguments)
    except MemoryError:
        with contextlib.suppress(OSError):
            os.write(STDERR, b"error: out of memory. allow more of it\n")
        return MemoryExhaustedError.exit_code


def _handle_error(error: BaseException, arguments: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return UsageError.exit_code
    known = _convert_error(error)
    if wait_to_speak(error):
        _print_error(known, error, arguments)
    return BUG if known is None else known.exit_code


def _print_error(known: SnnpruneError | None, error: BaseException, arguments: list[str]) -> None:
    if known is None:
        _print_trace(error)
        _print_json_error(SnnpruneError(repr(error)), arguments)
        _say(f"error: this is a bug in snnprune: {make_printable(repr(error))}")
        return
    if not known.in_report:
        _print_json_error(known, arguments)
    said = "" if isinstance(known, StoppedError) else "error: "
    for line in getattr(known, "lines", (str(known),)):
        _say(f"{said}{make_printable(line, LIMIT)}")
    if known.__cause__ is not None and _is_flag_set(arguments, "v", "--verbose"):
        _print_trace(known.__cause__)


def _print_json_error(error: SnnpruneError, arguments: list[str]) -> None:
    """The error as JSON where that is asked for; its line and code stand without."""
    if "--json" in arguments:
        with contextlib.suppress(OutputError, ReaderLeftError):
            print(format_json_line({"ok": False, "error": error.as_dict()}), flush=True)


def _print_trace(error: BaseException) -> None:
    """A traceback, whose text may come from a file."""
    for part in traceback.format_exception(error):
        for line in part.splitlines():
            _say(make_printable(line, LIMIT))


def _say(line: str) -> None:
    """A line on stderr, if anybody reads it: the exit code tells too."""
    with contextlib.suppress(ReaderLeftError):
        print(line, file=sys.stderr, flush=True)


def _convert_error(error: BaseException) -> SnnpruneError | None:
    """The error as one of ours, or None for a bug."""
    if isinstance(error, SnnpruneError):
        return error
    if not isinstance(error, Exception):
        return _make_exit_error(error)
    if hasattr(error, "format_message"):  # what typer says of a wrong command line
        message = error.format_message().rstrip(".")
        return UsageError(message[:1].lower() + message[1:], hint="--help lists what there is")
    return convert_torch_error(error)


def _make_exit_error(error: BaseException) -> InputError:
    """What no code of ours raises, such as SystemExit, with the line that it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    found = InputError(
        f"ended the program with {type(error).__name__}: {error}",
        file=f"{last.filename}:{last.lineno}",
        hint="-v shows its traceback",
    )
    found.__cause__ = error
    return found


def _is_flag_set(arguments: list[str], letter: str, flag: str) -> bool:
    short = (word for word in arguments if word[:1] == "-" and word[:2] != "--")
    return flag in arguments or any(letter in word for word in short)


def _say_nothing(_: str) -> None:
    """Nothing is said."""


def _terminate(*_: object) -> None:
    raise _TerminatedError  # unwinds, so that temporary files go
