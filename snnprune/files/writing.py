"""Files written whole or not at all: beside their places, which all of them take, or none.

What is to be written lies in a temporary folder that is locked while its process lives.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnprune.errors import OutputError, SnnpruneError, UsageError


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


def write_text(path: Path, text: str, *, within: Path | None = None) -> None:
    """Write `text` as UTF-8, whole or not at all; `within` is as for `replace_file`.

    Raises:
        OutputError: it cannot be written.
    """
    with replace_file(path, within=within) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, format_json(value))


def format_json(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class StagedFile:
    """Where a file goes, and where it is written before."""

    path: Path
    """As it was asked for."""
    folder: int
    """Descriptor of the folder that it goes to."""
    name: str
    """In that folder, and in the temporary one."""
    handle: int
    """Descriptor of the temporary folder."""
    staged: Path
    """Leads to the file in the temporary folder."""
    old: str
    """The name in the temporary folder of what had the place before."""

    def is_written(self) -> bool:
        """Whether the file is there to be moved."""
        return read_status(self.handle, self.name) is not None


@contextlib.contextmanager
def replace_together(*paths: Path, within: Path | None = None) -> Iterator[tuple[Path, ...]]:
    """Temporary paths for `paths`, which take their places when the block ends without an error.

    All are on disk before the first is renamed. They are renamed last to first: the first one
    vouches for the others. An error at any moment leaves what was there before, and a crash too,
    but for one between two renames. A path that the block leaves unwritten stays as it was.

    A link in the place of a file is followed; `within` a folder that a stranger may have made it
    is refused, and so is one in the place of a folder below.

    Raises:
        OutputError: a file cannot be written, or what has its place is no regular file.
    """
    with contextlib.ExitStack() as stack:
        places = _stage_files(paths, within, stack)
        with _name_targets_in_errors(places):
            yield tuple(place.staged for place in places)
        _commit([place for place in places if place.is_written()])


@contextlib.contextmanager
def replace_file(path: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error.

    As `replace_together` of one file. The mode is what the umask gives a new file.

    Raises:
        OutputError: it cannot be written, or what has its place is no regular file.
    """
    with replace_together(path, within=within) as (staged,), as_output_error(path):
        yield staged


def _stage_files(
    paths: Sequence[Path], within: Path | None, stack: contextlib.ExitStack
) -> tuple[StagedFile, ...]:
    """One temporary folder for the files of each folder, held until `stack` is left."""
    made: dict[Path, tuple[int, int, Path]] = {}
    found = []
    for number, path in enumerate(paths):
        with as_output_error(path):
            target = _follow_link(path) if within is None and path.is_symlink() else path
            if target.parent not in made:
                made[target.parent] = _open_staging(target.parent, within, stack)
        folder, handle, leading = made[target.parent]
        place = StagedFile(
            path=path,
            folder=folder,
            name=target.name,
            handle=handle,
            staged=leading / target.name,
            old=f".old-{number}",
        )
        found.append(place)
    return tuple(found)


def _follow_link(path: Path) -> Path:
    """Where a link leads that the user made, or whoever has the folder; root may do as it likes.

    Raises:
        OutputError: somebody else made it, perhaps to have another file written over.
    """
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid(), path.parent.stat().st_uid):
        raise not_ours_error(path, found, "a regular file")
    return path.resolve()


def _open_staging(
    parent: Path, within: Path | None, stack: contextlib.ExitStack
) -> tuple[int, int, Path]:
    """Descriptors of the folder and of a temporary one in it, and a path that leads into that."""
    if within is None:
        handle = open_folder(parent)
    else:
        handle = open_folder(within, parent.relative_to(within).parts)
    folder = stack.enter_context(close_after(handle))
    name, inner = stack.enter_context(make_staging_folder(folder))
    return folder, inner, path_by_handle(inner, parent / name)


@contextlib.contextmanager
def _name_targets_in_errors(places: Iterable[StagedFile]) -> Iterator[None]:
    """An error about a temporary file is told of the one that it was to be."""
    try:
        yield
    except SnnpruneError as error:
        names = {str(place.staged): str(place.path) for place in places}
        error.file = names.get(error.file or "", error.file)
        raise


def _commit(places: Sequence[StagedFile]) -> None:
    """Move the files to their places.

    Raises:
        OutputError: that failed; all is as it was before.
    """
    for place in places:
        with as_output_error(place.path):
            require_regular_in(place.folder, place.name, place.path)
            _flush(place.handle, place.name)
            _set_aside(place)
    moved: list[StagedFile] = []
    try:
        for place in reversed(places):
            if place is places[0]:  # after a power cut too the one that vouches is the last
                _flush_folders(moved)
            with as_output_error(place.path):
                moved.append(place)
                os.rename(place.name, place.name, src_dir_fd=place.handle, dst_dir_fd=place.folder)
        _flush_folders(places[:1])
    except BaseException:
        _put_back(moved)
        raise


def _flush(folder: int, name: str) -> None:
    with close_after(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)) as handle:
        os.fsync(handle)


def _flush_folders(places: Sequence[StagedFile]) -> None:
    for folder, path in {place.folder: place.path for place in places}.items():
        with as_output_error(path):
            os.fsync(folder)


def _set_aside(place: StagedFile) -> None:
    """Keep what is there under a second name, or a copy where there can be none."""
    if read_status(place.folder, place.name) is None:
        return
    try:
        os.link(
            place.name,
            place.old,
            src_dir_fd=place.folder,
            dst_dir_fd=place.handle,
            follow_symlinks=False,
        )
    except OSError:
        _copy_aside(place)


def _copy_aside(place: StagedFile) -> None:
    source = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=place.folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(source, "rb") as old:
        copy = os.open(place.old, flags, os.fstat(source).st_mode & 0o777, dir_fd=place.handle)
        with os.fdopen(copy, "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(copy)


def _put_back(moved: Sequence[StagedFile]) -> None:
    """What was there before is there again; what else fails now is told by the first error."""
    for place in reversed(moved):
        with contextlib.suppress(OSError):
            if read_status(place.handle, place.old) is not None:
                os.rename(place.old, place.name, src_dir_fd=place.handle, dst_dir_fd=place.folder)
            elif not place.is_written():
                os.unlink(place.name, dir_fd=place.folder)


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
