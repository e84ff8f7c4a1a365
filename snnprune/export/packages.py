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

NEEDED = {"nir": ("nir", "nirtorch"), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""By format."""

PRINTED = re.compile(r"^\[WARNING\] *(.+)$", re.MULTILINE)  # what snnTorch says of what it drops


def import_package(name: str, *, to: str) -> Any:
    """The module of that name.

    Raises:
        InputError: a package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        known = NEEDED[to] if missing in NEEDED[to] else (missing,)
        raise InputError(
            f"needs the package {missing}",
            field=f"--to {to}",
            hint=f"pip install {' '.join(known)}",
        ) from None


@contextlib.contextmanager
def convert_package_errors(who: str, *, to: str, hint: str | None = None) -> Iterator[None]:
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
        raise InputError(
            f"{who} says: {printed or _first_paragraph(error)}", field=f"--to {to}", hint=hint
        ) from error


def _first_paragraph(error: Exception) -> str:
    """Its first paragraph, in one line."""
    text = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(text.split())}".rstrip(".: ")
