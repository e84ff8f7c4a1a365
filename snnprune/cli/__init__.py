"""The command line: parse, one call, show. The only place where errors become text and codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from snnprune.cli.app import app
from snnprune.cli.failures import run
from snnprune.launch import place


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `snnprune` and leave the process with its exit code."""
    code = run(app, list(sys.argv[1:] if arguments is None else arguments))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nobody is left to take what `run` raises
    if place().size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads of gloo that outlive the interpreter would abort it
    sys.exit(code)


__all__ = ["app", "main"]
