"""Whether the files of a public data set are there and whole, before anything reads them."""

import contextlib
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from snnprune.errors import InputError

DELETE = "delete it and get it again"


def missing_error(name: str, folder: Path, looked_for: str) -> InputError:
    """The error that says which files of the set `name` were looked for in `folder`."""
    return InputError(
        f"{name} is not there, looked for {looked_for}",
        file=folder,
        hint="give --data-root or --download",
    )


def require_intact(name: str, folder: Path, checksums: Mapping[str, str]) -> None:
    """Refuse files of `folder` that are missing or differ from the MD5 sums of their publisher.

    The sums also keep a pickle that somebody has exchanged from being read.

    Raises:
        InputError: which files are missing, or which one is damaged.
    """
    from torchvision.datasets.utils import check_integrity

    absent = [file for file in checksums if not (folder / file).is_file()]
    if absent:
        raise missing_error(name, folder, ", ".join(absent))
    for file, checksum in checksums.items():
        if not check_integrity(folder / file, checksum):
            raise InputError("damaged, its MD5 sum is wrong", file=folder / file, hint=DELETE)


def download(name: str, fetch: Callable[[], object], root: Path) -> None:
    """Let torchvision fetch the set `name` into `root`.

    Raises:
        InputError: there is no connection, the server refuses or sends something else, or `root`
            cannot be written.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _restrict_unpacking():  # stdout: results
            fetch()
    except (OSError, RuntimeError, tarfile.TarError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name} cannot be downloaded: {reason}",
            file=root,
            hint="get its files by other means and give their folder as --data-root",
        ) from error


@contextlib.contextmanager
def _restrict_unpacking() -> Iterator[None]:
    """In the block no archive puts a file outside of its folder, nor a link or a device in it.

    That is what tarfile does by itself from Python 3.14 on, and torchvision does not ask for.
    """
    kind: Any = tarfile.TarFile
    before = getattr(kind, "extraction_filter", None)
    if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
        kind.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        kind.extraction_filter = before
