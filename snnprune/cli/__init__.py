"""The command line: parse, one call, show. The only place where errors become text and codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from snnprune.cli.app import app
from snnprune.cli.failures import run


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `snnprune` and leave the process with its exit code."""
    sys.exit(run(app, list(sys.argv[1:] if arguments is None else arguments)))


__all__ = ["app", "main"]
