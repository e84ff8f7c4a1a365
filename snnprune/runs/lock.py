"""One run per folder: a lock that ends with the process, however that ends."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from snnprune.errors import OutputError
from snnprune.files import as_output_error, opened_in

NAME = "run.lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[tuple[str, ...]]:
    """Hold `run.lock` in `folder`, which is made where it is missing; gives warnings.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    file, warnings = _held(folder)
    with file:
        _sign(file, folder)
        yield warnings


def _held(folder: Path) -> tuple[TextIOWrapper, tuple[str, ...]]:
    while True:
        file = _opened(folder)
        warnings = _lock(file, folder)
        if _is_there(file, folder):
            return file, warnings
        file.close()  # its last holder took it away while we waited


def _opened(folder: Path) -> TextIOWrapper:
    with as_output_error(folder / NAME):
        folder.mkdir(parents=True, exist_ok=True)
        with opened_in(folder, [NAME], os.O_RDWR | os.O_APPEND | os.O_CREAT) as handle:
            return os.fdopen(os.dup(handle), "a+", encoding="utf-8")


def _lock(file: TextIOWrapper, folder: Path) -> tuple[str, ...]:
    """Take the lock, or warn where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(file, folder) from None
    except OSError as error:
        return (f"{folder}: cannot be locked ({error.strerror}): start no second run in it",)
    return ()


def _taken(file: TextIOWrapper, folder: Path) -> OutputError:
    with file:
        file.seek(0)
        holder = file.read(200) or "another process"
    return OutputError(
        f"a run is at work here: {holder}", file=folder, hint="wait for it or choose another folder"
    )


def _is_there(file: TextIOWrapper, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / NAME).lstat())
    except FileNotFoundError:
        return False


def _sign(file: TextIOWrapper, folder: Path) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    line = f"process {os.getpid()} on {socket.gethostname()} since {since}"
    with as_output_error(folder / NAME):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), line.encode())  # not into a buffer, which `close` would write again
