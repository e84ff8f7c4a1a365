"""The command line: parse, one call, show. The only place where errors become text and codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from typer.main import get_command

from snnprune.cli.commands import app
from snnprune.cli.console import ReaderLeftError, claim_stdout
from snnprune.cli.failures import report_workers_once, run_app
from snnprune.errors import OutputError
from snnprune.runtime import read_process_rank


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `snnprune` and leave the process with its exit code."""
    claim_stdout()
    with report_workers_once():
        code = run_app(_run_command, list(sys.argv[1:] if arguments is None else arguments))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nobody is left to take what `run_app` raises
    with contextlib.suppress(OutputError, ReaderLeftError):
        sys.stdout.flush()
        sys.stderr.flush()
    sys.stdout = sys.stderr  # what a user's code prints at exit is no result either
    if read_process_rank().size > 1:
        os._exit(code)  # threads of gloo that outlive the interpreter would abort it
    sys.exit(code)


def _run_command(*arguments: Any, **settings: Any) -> Any:
    """The app as a command, which leaves `sys.excepthook` as it is; the app itself would not."""
    return get_command(app)(*arguments, **settings)


__all__ = ["app", "main"]
