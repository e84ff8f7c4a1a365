"""Whose a run folder is: its lock, the names of what is in it, and that it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from snnprune.errors import InputError, OutputError
from snnprune.files.reading import compute_sums
from snnprune.files.writing import (
    as_output_error,
    close_after,
    list_names,
    not_ours_error,
    open_file_in,
    open_folder,
    read_status,
    replace_together,
    require_writable_folder,
    sweep,
)
from snnprune.training.runs import state

NAME = "run.lock"


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[tuple[str, ...]]:
    """Hold `run.lock` in `folder`, which is made where it is missing; gives warnings.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    file, warnings = _acquire_lock(folder)
    with file:
        _sign(file, folder)
        yield warnings


def _acquire_lock(folder: Path) -> tuple[TextIOWrapper, tuple[str, ...]]:
    while True:
        file = _open_lock(folder)
        warnings = _lock(file, folder)
        if _is_there(file, folder):
            return file, warnings
        file.close()  # its last holder took it away while we waited


def _open_lock(folder: Path) -> TextIOWrapper:
    with as_output_error(folder / NAME):
        folder.mkdir(parents=True, exist_ok=True)
        with open_file_in(folder, [NAME], os.O_RDWR | os.O_APPEND | os.O_CREAT) as handle:
            return os.fdopen(os.dup(handle), "a+", encoding="utf-8")


def _lock(file: TextIOWrapper, folder: Path) -> tuple[str, ...]:
    """Take the lock, or warn where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken_error(file, folder) from None
    except OSError as error:
        return (f"{folder}: cannot be locked ({error.strerror}): start no second run in it",)
    return ()


def _taken_error(file: TextIOWrapper, folder: Path) -> OutputError:
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


RECIPE, METRICS, STATES, REPORT = "recipe.yaml", "metrics.jsonl", "state", "report.json"
TENSORBOARD, TEMPORARY = "tensorboard", ".snnprune-*.tmp"
REPORTS = (REPORT, "report.html", "report.md")
MODEL, MASK, BEST = "model.safetensors", "mask.safetensors", "best.safetensors"
SHOWN = (
    *("accuracy.png", "accuracy.svg", "densities.png", "densities.svg"),
    *("firing-rates.png", "firing-rates.svg", "table.md"),
)
SUMS, DONE = "SHA256SUMS", "DONE"

# what makes it a run goes first when a folder is cleared
OF_RUN = (DONE, RECIPE, SUMS, METRICS, MODEL, MASK, BEST, *REPORTS, *SHOWN)
OF_RESULT = (MODEL, MASK)
RESULT = re.compile(r"round-\d+|dense|sparsity-[\w.+-]+")
AROUND = re.compile(r"seed-\d+")


def require_ready(folder: Path, *, resume: bool, force: bool) -> None:
    """Refuse, before any work is done, a folder that a run cannot or must not use.

    Raises:
        InputError: there is no run to resume.
        OutputError: there is something in it, nothing can be written there, or what has the name
            of a file of ours is none.
    """
    if resume:
        require_run(folder)
    elif not force and folder.is_dir():
        _require_empty(folder)
    require_writable_folder(folder)
    require_ours(folder)


def require_run(folder: Path) -> None:
    """Refuse a folder without a run.

    Raises:
        InputError: there is none in it.
    """
    if not holds_run(folder):
        raise InputError(
            "holds no run to resume", file=folder, hint="without --resume one is started"
        )


def _require_empty(folder: Path) -> None:
    if holds_run(folder) and (folder / DONE).exists():
        raise OutputError("holds a finished run", file=folder, hint="--force replaces it")
    if holds_run(folder):
        hint = "--resume continues it, --force replaces it"
        raise OutputError("holds an unfinished run", file=folder, hint=hint)
    if list_contents(folder):
        raise OutputError("is not empty", file=folder, hint="--force replaces what is in it")


def holds_run(folder: Path) -> bool:
    """Whether there is a run in it, finished or not, or one for each of several seeds.

    Or one for each pair of a grid, which has the recipe of all around them.
    """
    marks = (NAME, DONE)
    if (folder / RECIPE).is_file():
        begun = any((folder / mark).exists() for mark in marks)
        return begun or any(folder.glob(f"*/{RECIPE}"))
    return any(folder.glob(f"seed-*/{RECIPE}"))


def list_contents(folder: Path) -> list[Path]:
    """What is in it, beside what a run that never began left."""
    if not folder.is_dir():
        return []
    left = {folder / NAME, *folder.glob(TEMPORARY)}
    return [path for path in folder.iterdir() if path not in left]


def require_ours(folder: Path, runs: Collection[str] = ()) -> None:
    """Refuse a run folder in which something else has the name of a file or folder of ours.

    `runs` are the names of folders of other runs in it.

    Raises:
        OutputError: a link, a pipe, a device, or a folder in the place of a file; or the folder
            cannot be read.
    """
    if not folder.is_dir():
        return
    with as_output_error(folder):
        for handle, place in _iter_folders(folder):
            for name in list_names(handle):
                top = place == folder
                _require_ours(handle, name, place / name, named=top and name in runs, top=top)


def _require_ours(handle: int, name: str, path: Path, *, named: bool, top: bool) -> None:
    found = read_status(handle, name)
    if found is None:
        return
    if (named or _names_folder(name, top=top)) and not stat.S_ISDIR(found.st_mode):
        raise not_ours_error(path, found, "a folder")
    if _names_file(name) and not stat.S_ISREG(found.st_mode):
        raise not_ours_error(path, found, "a regular file")


def _names_file(name: str) -> bool:
    return name in (*OF_RUN, NAME) or state.NAME.fullmatch(name) is not None


def _names_folder(name: str, *, top: bool) -> bool:
    around = top and (name in (STATES, TENSORBOARD) or AROUND.fullmatch(name) is not None)
    return around or RESULT.fullmatch(name) is not None


def clear(folder: Path) -> None:
    """Delete what an older run left, by the names that files of ours have; all others stay.

    Raises:
        OSError: something cannot be deleted.
    """
    for handle, place in _iter_folders(folder):
        if place == folder:
            _delete(handle, OF_RUN)
        elif place == folder / STATES:
            _delete(handle, filter(state.NAME.fullmatch, list_names(handle)))
        elif RESULT.fullmatch(place.name):
            _delete(handle, OF_RESULT)
        sweep(handle)


def sweep_all(folder: Path) -> None:
    """Delete what a process that was killed was writing."""
    for handle, _ in _iter_folders(folder):
        sweep(handle)


def list_results(folder: Path) -> list[str]:
    """The results in the folders of rounds and searches, by their paths below `folder`."""
    return sorted(
        str((place / name).relative_to(folder))
        for handle, place in _iter_folders(folder)
        if RESULT.fullmatch(place.name) and place != folder
        for name in OF_RESULT
        if _is_file(handle, name)
    )


def _iter_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """The run's folder, that of its states, and those of rounds, which may lie in one of a method.

    Open; a link is never followed.
    """
    with close_after(open_folder(folder, make=False)) as handle:
        yield handle, folder
        for name in list_names(handle):
            if _is_folder(handle, name) and not AROUND.fullmatch(name):
                yield from _iter_folders_below(handle, folder / name)


def _iter_folders_below(above: int, place: Path) -> Iterator[tuple[int, Path]]:
    """One in the run's folder, and the results in it where it is a method's."""
    ours = _names_folder(place.name, top=True)
    with close_after(_open_folder(above, place.name)) as handle:
        if ours:
            yield handle, place
            return
        for name in list_names(handle):
            if name.startswith("round-") and RESULT.fullmatch(name) and _is_folder(handle, name):
                with close_after(_open_folder(handle, name)) as result:
                    yield result, place / name


def _open_folder(above: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)


def _is_folder(handle: int, name: str) -> bool:
    found = read_status(handle, name)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _is_file(handle: int, name: str) -> bool:
    found = read_status(handle, name)
    return found is not None and stat.S_ISREG(found.st_mode)


def _delete(handle: int, names: Iterable[str]) -> None:
    for name in names:
        if _is_file(handle, name):
            os.unlink(name, dir_fd=handle)


def vouch(folder: Path, names: Iterable[str]) -> None:
    """Write the hashes of files of a folder, and that it is whole, together.

    Raises:
        OutputError: a file cannot be read, or these cannot be written.
    """
    with as_output_error(folder):
        lines = compute_sums(folder, names)
    with replace_together(folder / DONE, folder / SUMS, within=folder) as (done, sums):
        with as_output_error(folder / SUMS):
            sums.write_text(lines, encoding="utf-8", newline="\n")
        with as_output_error(folder / DONE):
            done.touch()


def begin_again(folder: Path) -> None:
    """The folder is not whole from here on."""
    for name in (DONE, SUMS):
        (folder / name).unlink(missing_ok=True)


def find_sums(folder: Path, names: Iterable[str]) -> list[str]:
    """The lists of hashes in folders of that name, which vouch for what is in them."""
    return [f"{name}/{SUMS}" for name in names if (folder / name / SUMS).is_file()]
