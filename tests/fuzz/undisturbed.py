"""What is left out so that an input takes milliseconds: waiting for the disk, and drawing."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from snnprune.files.writing import replace_file

BLANK = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9pt" height="9pt"/>'


def _blank(figure: object, path: Path) -> None:
    with replace_file(path) as temporary:
        temporary.write_bytes(BLANK)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing is synced, no picture is drawn, and warnings of libraries are not told."""
    with (
        patch.object(os, "fsync", lambda handle: None),
        patch("snnprune.report.plots.canvas.save_figure", _blank),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
