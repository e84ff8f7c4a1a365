"""Whether an output may be written, before any work is done."""

import os
from collections.abc import Iterable
from pathlib import Path

from snnprune.errors import OutputError, UsageError
from snnprune.files.failing import as_output_error


def require_free(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse, before any work is done, an output that cannot or must not be written.

    Raises:
        OutputError: `path` is one of `inputs` (also through a link), exists and `force` is off,
            is a folder, or lies where no file can be made.
    """
    with as_output_error(path):
        _require_no_input(path, inputs)
        if path.is_dir():
            raise OutputError("is a folder", file=path, hint="name a file in it")
        if path.exists() and not path.is_file():
            raise OutputError("is not a regular file", file=path, hint="choose another place")
        if os.path.lexists(path) and not force:
            raise OutputError("exists already", file=path, hint="--force replaces it")
        require_writable_folder(path.parent)


def _require_no_input(path: Path, inputs: Iterable[Path]) -> None:
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError("output is the input", file=path, hint="choose another file")


def require_apart(path: Path, others: Iterable[Path], *, field: str) -> None:
    """Refuse a file that the same command writes as something else, or under a link to it.

    Raises:
        UsageError: it is one of `others`.
    """
    for other in others:
        if path.resolve() == other.resolve():
            raise UsageError(f"{path} is written as something else too", field=field)


def require_writable_folder(folder: Path) -> None:
    """Refuse a folder that is not there and cannot be made, or that takes no new files."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError("is not a folder", file=nearest, hint="choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError("folder is read-only", file=nearest, hint="choose another place")
