"""A temporary folder beside what is to be written, locked while its process lives."""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator

from snnprune.files.opened import OURS, held, status_in

BEGIN, END = ".snnprune-", ".tmp"
NESTED = 3  # as deep as one of these folders can lie in another, with files in it


@contextlib.contextmanager
def staging(folder: int) -> Iterator[tuple[str, int]]:
    """Name and descriptor of a new folder in an open one; it is gone after the block.

    What processes that were killed left in `folder` goes first.

    Raises:
        OSError: it cannot be made.
    """
    sweep(folder)
    name, handle = _made(folder)
    with held(handle):
        try:
            yield name, handle
        finally:
            _remove(folder, name, handle)


def sweep(folder: int) -> None:
    """Delete from an open folder what processes that are gone were writing there."""
    for name in os.listdir(folder):
        if name.startswith(BEGIN) and name.endswith(END):
            with contextlib.suppress(OSError):  # it may be another user's, or gone by now
                _sweep_one(folder, name)


def _sweep_one(folder: int, name: str) -> None:
    with held(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)) as handle:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is being written
        if stat.S_ISDIR(mode):
            _remove(folder, name, handle)
        else:
            os.unlink(name, dir_fd=folder)


def _made(folder: int) -> tuple[str, int]:
    while True:
        name = f"{BEGIN}{secrets.token_hex(8)}{END}"
        os.mkdir(name, 0o700, dir_fd=folder)
        try:
            handle = os.open(name, OURS, dir_fd=folder)
        except FileNotFoundError:
            continue  # another process took it for a dead one's before it was locked
        if _is_ours(folder, name, handle):
            return name, handle
        os.close(handle)


def _is_ours(folder: int, name: str, handle: int) -> bool:
    """Lock it; whether it still has its name."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: nobody can take it for a dead one's
    found = status_in(folder, name)
    return found is not None and os.path.samestat(found, os.fstat(handle))


def _remove(folder: int, name: str, handle: int) -> None:
    """Empty the folder behind `handle`, and take its name away."""
    _empty(handle, NESTED)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=folder)


def _empty(handle: int, depth: int) -> None:
    for name in os.listdir(handle):
        try:
            os.unlink(name, dir_fd=handle)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM) or not depth:
                continue
            with contextlib.suppress(OSError), held(os.open(name, OURS, dir_fd=handle)) as below:
                _empty(below, depth - 1)
                os.rmdir(name, dir_fd=handle)
