"""From exceptions to one line and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from snnprune.cli.peers import may_speak
from snnprune.errors import (
    MemoryExhaustedError,
    SnnpruneError,
    StoppedError,
    UsageError,
    says_out_of_memory,
)
from snnprune.escaping import printable
from snnprune.launch import place

BUG, INTERRUPTED, TERMINATED = 1, 130, 143
LIMIT = 2000  # characters of one error line


class _TerminatedError(BaseException):
    """SIGTERM; no Exception, so that nobody takes it for a fault of a user's function."""


def run(app: Callable[..., Any], arguments: list[str]) -> int:
    """Run the app on `arguments` and return its exit code; every failure has been told then."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(arguments, prog_name="snnprune", standalone_mode=False)
        sys.stdout.flush()
        return _interrupted() if code == INTERRUPTED else code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _TerminatedError:
        return TERMINATED
    except BrokenPipeError:
        # the reader left: keep Python from complaining again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _told(error, arguments)


def _interrupted() -> int:
    if place().first:
        print("interrupted: what was under way is not written", file=sys.stderr)
    return INTERRUPTED


def _told(error: Exception, arguments: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return UsageError.exit_code
    known = _as_ours(error)
    if may_speak(error):
        _tell(known, error, arguments)
    return BUG if known is None else known.exit_code


def _tell(known: SnnpruneError | None, error: Exception, arguments: list[str]) -> None:
    if known is None:
        traceback.print_exception(error)
        if "--json" in arguments:
            print(json.dumps({"ok": False, "error": SnnpruneError(repr(error)).as_dict()}))
        print(f"error: this is a bug in snnprune: {printable(repr(error))}", file=sys.stderr)
        return
    if "--json" in arguments and not known.in_report:
        print(json.dumps({"ok": False, "error": known.as_dict()}))
    said = "" if isinstance(known, StoppedError) else "error: "
    for line in getattr(known, "lines", (str(known),)):
        print(f"{said}{printable(line, LIMIT)}", file=sys.stderr)
    if known.__cause__ is not None and _verbose(arguments):
        traceback.print_exception(known.__cause__)


def _as_ours(error: Exception) -> SnnpruneError | None:
    """The error as one of ours, or None for a bug."""
    if isinstance(error, SnnpruneError):
        return error
    if hasattr(error, "format_message"):  # what typer says of a wrong command line
        message = error.format_message().rstrip(".")
        return UsageError(message[:1].lower() + message[1:], hint="--help lists what there is")
    if says_out_of_memory(error):
        return MemoryExhaustedError("out of memory", hint="give a smaller --batch-size")
    return None


def _verbose(arguments: list[str]) -> bool:
    short = (word for word in arguments if word[:1] == "-" and word[:2] != "--")
    return "--verbose" in arguments or any("v" in word for word in short)


def _terminate(*_: object) -> None:
    raise _TerminatedError  # unwinds, so that temporary files go
