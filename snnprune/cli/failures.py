"""From exceptions to one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer

from snnprune.cli.app import may_speak
from snnprune.cli.console import STDERR, ReaderLeftError
from snnprune.errors import (
    InputError,
    MemoryExhaustedError,
    OutputError,
    SnnpruneError,
    StoppedError,
    UsageError,
    told_by_torch,
)
from snnprune.plugins.waiting import watched
from snnprune.runtime import place
from snnprune.text import as_json, printable

BUG, INTERRUPTED, TERMINATED = 1, 130, 143
RESERVE = 2**22  # bytes to tell in that there is no memory left
LIMIT = 2000  # characters of one error line


class _TerminatedError(BaseException):
    """SIGTERM; no Exception, so that nobody takes it for a fault of a user's function."""


def run(app: Callable[..., Any], arguments: list[str]) -> int:
    """Run the app on `arguments` and return its exit code; every failure has been told then."""
    signal.signal(signal.SIGTERM, _terminate)
    out, reserve = sys.stdout, [bytearray(RESERVE)]

    def end(error: SnnpruneError) -> None:
        with contextlib.redirect_stdout(out):  # the command has taken it, and does not give it back
            _tell(error, error, arguments)

    try:
        with watched(_silent if _asked(arguments, "q", "--quiet") else _say, end):
            code = app(arguments, prog_name="snnprune", standalone_mode=False)
        sys.stdout.flush()
        return _interrupted() if code == INTERRUPTED else code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _TerminatedError:
        return TERMINATED
    except ReaderLeftError:
        return 0
    except BaseException as error:  # a user's code may raise anything
        reserve.clear()
        return _told_in_any_case(error, arguments)


@contextlib.contextmanager
def silent_about_workers() -> Iterator[None]:
    """In the block it is told once that a process that loads data is gone.

    Torch raises it again where a loader is taken down, and Python shows what is raised there.
    """
    before = sys.unraisablehook

    def tell(raised: sys.UnraisableHookArgs) -> None:
        if raised.exc_value is None or told_by_torch(raised.exc_value) is None:
            before(raised)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupted() -> int:
    if place().first:
        _say("interrupted: what was under way is not written")
    return INTERRUPTED


def _told_in_any_case(error: BaseException, arguments: list[str]) -> int:
    try:
        return _told(error, arguments)
    except MemoryError:
        with contextlib.suppress(OSError):
            os.write(STDERR, b"error: out of memory. allow more of it\n")
        return MemoryExhaustedError.exit_code


def _told(error: BaseException, arguments: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return UsageError.exit_code
    known = _as_ours(error)
    if may_speak(error):
        _tell(known, error, arguments)
    return BUG if known is None else known.exit_code


def _tell(known: SnnpruneError | None, error: BaseException, arguments: list[str]) -> None:
    if known is None:
        _trace(error)
        _report(SnnpruneError(repr(error)), arguments)
        _say(f"error: this is a bug in snnprune: {printable(repr(error))}")
        return
    if not known.in_report:
        _report(known, arguments)
    said = "" if isinstance(known, StoppedError) else "error: "
    for line in getattr(known, "lines", (str(known),)):
        _say(f"{said}{printable(line, LIMIT)}")
    if known.__cause__ is not None and _asked(arguments, "v", "--verbose"):
        _trace(known.__cause__)


def _report(error: SnnpruneError, arguments: list[str]) -> None:
    """The error as JSON where that is asked for; its line and code stand without."""
    if "--json" in arguments:
        with contextlib.suppress(OutputError, ReaderLeftError):
            print(as_json({"ok": False, "error": error.as_dict()}), flush=True)


def _trace(error: BaseException) -> None:
    """A traceback, whose text may come from a file."""
    for part in traceback.format_exception(error):
        for line in part.splitlines():
            _say(printable(line, LIMIT))


def _say(line: str) -> None:
    """A line on stderr, if anybody reads it: the exit code tells too."""
    with contextlib.suppress(ReaderLeftError):
        print(line, file=sys.stderr, flush=True)


def _as_ours(error: BaseException) -> SnnpruneError | None:
    """The error as one of ours, or None for a bug."""
    if isinstance(error, SnnpruneError):
        return error
    if not isinstance(error, Exception):
        return _ended_by(error)
    if hasattr(error, "format_message"):  # what typer says of a wrong command line
        message = error.format_message().rstrip(".")
        return UsageError(message[:1].lower() + message[1:], hint="--help lists what there is")
    return told_by_torch(error)


def _ended_by(error: BaseException) -> InputError:
    """What no code of ours raises, such as SystemExit, with the line that it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    found = InputError(
        f"ended the program with {type(error).__name__}: {error}",
        file=f"{last.filename}:{last.lineno}",
        hint="-v shows its traceback",
    )
    found.__cause__ = error
    return found


def _asked(arguments: list[str], letter: str, flag: str) -> bool:
    short = (word for word in arguments if word[:1] == "-" and word[:2] != "--")
    return flag in arguments or any(letter in word for word in short)


def _silent(_: str) -> None:
    """Nothing is said."""


def _terminate(*_: object) -> None:
    raise _TerminatedError  # unwinds, so that temporary files go
