"""A temporary folder beside what is to be written, locked while its process lives."""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from snnprune.errors import OutputError


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """What goes wrong in the block goes wrong in writing `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"cannot be written: {reason}",
            file=path,
            hint="free some space or choose another place",
        ) from error


FOLDER = os.O_RDONLY | os.O_DIRECTORY
OURS = FOLDER | os.O_NOFOLLOW


def open_folder(folder: Path, parts: Iterable[str] = (), *, make: bool = True) -> int:
    """A descriptor of `folder`, or of what lies below it by `parts`, none of them a link.

    What is missing is made, unless `make` is off.

    Raises:
        OSError: something of that name is there and is no folder, or is a link below `folder`.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, FOLDER)
    for part in parts:
        try:
            below = _open_below(handle, part, make=make)
        finally:
            os.close(handle)
        handle = below
    return handle


def _open_below(handle: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=handle)
    return os.open(name, OURS, dir_fd=handle)


@contextlib.contextmanager
def close_after(handle: int) -> Iterator[int]:
    """A descriptor that is closed after the block."""
    try:
        yield handle
    finally:
        os.close(handle)


def read_status(handle: int, name: str) -> os.stat_result | None:
    """What has this name in an open folder, links not followed; None for nothing."""
    try:
        return os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return None


def list_names(handle: int) -> list[str]:
    """What lies in an open folder, in order."""
    return sorted(os.listdir(handle))


def require_regular_in(handle: int, name: str, path: Path) -> None:
    """Refuse what is in the place of a file of ours, `path`, and is none.

    Raises:
        OutputError: a link, a folder, a pipe or a device has the name.
    """
    found = read_status(handle, name)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise not_ours_error(path, found, "a regular file")


def not_ours_error(path: Path, found: os.stat_result, wanted: str) -> OutputError:
    """What is to be said where something else has the name of a file or folder of ours."""
    link = stat.S_ISLNK(found.st_mode)
    return OutputError(
        f"is {'a link, ' if link else ''}not {wanted}",
        file=path,
        hint="look at who put it there, then delete it or choose another place",
    )


def path_by_handle(handle: int, folder: Path) -> Path:
    """A path that leads into an open folder whatever its name is by now."""
    path = Path(f"/proc/self/fd/{handle}")
    return path if path.exists() else folder  # there may be no /proc


@contextlib.contextmanager
def open_file_in(folder: Path, parts: Sequence[str], flags: int) -> Iterator[int]:
    """A regular file below `folder` by `parts`, opened by `flags`; no link is followed on the way.

    Raises:
        OutputError: something else than a regular file has the name, or one with other names too.
        OSError: it cannot be opened.
    """
    *above, name = parts
    with close_after(open_folder(folder, above, make=False)) as handle:
        require_regular_in(handle, name, folder.joinpath(*parts))
        careful = flags | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its other end
        with close_after(os.open(name, careful, 0o666, dir_fd=handle)) as file:
            _require_alone(os.fstat(file), folder.joinpath(*parts))
            yield file


def _require_alone(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise not_ours_error(path, found, "a regular file")
    if found.st_nlink > 1:
        raise OutputError(
            "has other names too: what is written would show there",
            file=path,
            hint="copy the folder without hard links, or delete the file",
        )


BEGIN, END = ".snnprune-", ".tmp"
NESTED = 3  # as deep as one of these folders can lie in another, with files in it


@contextlib.contextmanager
def make_staging_folder(folder: int) -> Iterator[tuple[str, int]]:
    """Name and descriptor of a new folder in an open one; it is gone after the block.

    What processes that were killed left in `folder` goes first.

    Raises:
        OSError: it cannot be made.
    """
    sweep(folder)
    name, handle = _make_locked_folder(folder)
    with close_after(handle):
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
    with close_after(
        os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    ) as handle:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is being written
        if stat.S_ISDIR(mode):
            _remove(folder, name, handle)
        else:
            os.unlink(name, dir_fd=folder)


def _make_locked_folder(folder: int) -> tuple[str, int]:
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
    found = read_status(folder, name)
    return found is not None and os.path.samestat(found, os.fstat(handle))


def _remove(folder: int, name: str, handle: int) -> None:
    """Empty the folder behind `handle`, and take its name away."""
    _empty_folder(handle, NESTED)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=folder)


def _empty_folder(handle: int, depth: int) -> None:
    for name in os.listdir(handle):
        try:
            os.unlink(name, dir_fd=handle)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM) or not depth:
                continue
            with (
                contextlib.suppress(OSError),
                close_after(os.open(name, OURS, dir_fd=handle)) as below,
            ):
                _empty_folder(below, depth - 1)
                os.rmdir(name, dir_fd=handle)
