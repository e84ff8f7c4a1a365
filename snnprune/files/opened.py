"""Folders held open, so that what is done in them cannot be led elsewhere by a link."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from snnprune.errors import OutputError

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
            below = _below(handle, part, make=make)
        finally:
            os.close(handle)
        handle = below
    return handle


def _below(handle: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=handle)
    return os.open(name, OURS, dir_fd=handle)


@contextlib.contextmanager
def held(handle: int) -> Iterator[int]:
    """A descriptor that is closed after the block."""
    try:
        yield handle
    finally:
        os.close(handle)


def status_in(handle: int, name: str) -> os.stat_result | None:
    """What has this name in an open folder, links not followed; None for nothing."""
    try:
        return os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names_in(handle: int) -> list[str]:
    """What lies in an open folder, in order."""
    return sorted(os.listdir(handle))


def require_regular_in(handle: int, name: str, path: Path) -> None:
    """Refuse what is in the place of a file of ours, `path`, and is none.

    Raises:
        OutputError: a link, a folder, a pipe or a device has the name.
    """
    found = status_in(handle, name)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise not_ours(path, found, "a regular file")


def not_ours(path: Path, found: os.stat_result, wanted: str) -> OutputError:
    """What is to be said where something else has the name of a file or folder of ours."""
    link = stat.S_ISLNK(found.st_mode)
    return OutputError(
        f"is {'a link, ' if link else ''}not {wanted}",
        file=path,
        hint="look at who put it there, then delete it or choose another place",
    )


def by_handle(handle: int, folder: Path) -> Path:
    """A path that leads into an open folder whatever its name is by now."""
    path = Path(f"/proc/self/fd/{handle}")
    return path if path.exists() else folder  # there may be no /proc


@contextlib.contextmanager
def opened_in(folder: Path, parts: Sequence[str], flags: int) -> Iterator[int]:
    """A regular file below `folder` by `parts`, opened by `flags`; no link is followed on the way.

    Raises:
        OutputError: something else than a regular file has the name, or one with other names too.
        OSError: it cannot be opened.
    """
    *above, name = parts
    with held(open_folder(folder, above, make=False)) as handle:
        require_regular_in(handle, name, folder.joinpath(*parts))
        careful = flags | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its other end
        with held(os.open(name, careful, 0o666, dir_fd=handle)) as file:
            _require_alone(os.fstat(file), folder.joinpath(*parts))
            yield file


def _require_alone(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise not_ours(path, found, "a regular file")
    if found.st_nlink > 1:
        raise OutputError(
            "has other names too: what is written would show there",
            file=path,
            hint="copy the folder without hard links, or delete the file",
        )
