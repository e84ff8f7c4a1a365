"""Packages that only an export needs, imported when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

from snnprune.errors import InputError, SnnpruneError, says_out_of_memory

PRINTED = re.compile(r"^\[WARNING\] *(.+)$", re.MULTILINE)  # what snnTorch says of what it drops


def required(name: str) -> Any:
    """The module of that name.

    Raises:
        InputError: a package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise InputError(
            f"needs the package {missing}",
            field="--to nir",
            hint=f"pip install {'nir nirtorch' if missing in ('nir', 'nirtorch') else missing}",
        ) from None


@contextlib.contextmanager
def speaking(who: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn whatever a package of somebody else's raises into an error that has its words.

    What it prints is kept off the screen: only of what went wrong is it worth reading.
    """
    said = io.StringIO()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            yield
    except (SnnpruneError, OSError):
        raise
    except Exception as error:
        if says_out_of_memory(error):
            raise
        printed = "; ".join(dict.fromkeys(PRINTED.findall(said.getvalue())))
        words = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{who} says: {printed or f'{type(error).__name__}: {words}'}",
            field="--to nir",
            hint=hint,
        ) from error
