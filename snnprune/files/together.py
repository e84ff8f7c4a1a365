"""Files that belong together: all of them take their places, or none."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snnprune.errors import SnnpruneError
from snnprune.files.folders import (
    as_output_error,
    close_after,
    make_staging_folder,
    not_ours_error,
    open_folder,
    path_by_handle,
    read_status,
    require_regular_in,
)


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
