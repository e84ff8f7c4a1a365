"""What in a run folder is ours, by name and by kind: a stranger may have made the folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from snnprune.files import as_output_error, held, names_in, not_ours, open_folder, status_in, sweep
from snnprune.runs import lock, states, tensorboard

RECIPE, METRICS, STATES, REPORT = "recipe.yaml", "metrics.jsonl", "state", "report.json"
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
        for handle, place in _folders(folder):
            for name in names_in(handle):
                top = place == folder
                _require_ours(handle, name, place / name, named=top and name in runs, top=top)


def _require_ours(handle: int, name: str, path: Path, *, named: bool, top: bool) -> None:
    found = status_in(handle, name)
    if found is None:
        return
    if (named or _names_folder(name, top=top)) and not stat.S_ISDIR(found.st_mode):
        raise not_ours(path, found, "a folder")
    if _names_file(name) and not stat.S_ISREG(found.st_mode):
        raise not_ours(path, found, "a regular file")


def _names_file(name: str) -> bool:
    return name in (*OF_RUN, lock.NAME) or states.NAME.fullmatch(name) is not None


def _names_folder(name: str, *, top: bool) -> bool:
    around = top and (name in (STATES, tensorboard.FOLDER) or AROUND.fullmatch(name) is not None)
    return around or RESULT.fullmatch(name) is not None


def clear(folder: Path) -> None:
    """Delete what an older run left, by the names that files of ours have; all others stay.

    Raises:
        OSError: something cannot be deleted.
    """
    for handle, place in _folders(folder):
        if place == folder:
            _delete(handle, OF_RUN)
        elif place == folder / STATES:
            _delete(handle, filter(states.NAME.fullmatch, names_in(handle)))
        elif RESULT.fullmatch(place.name):
            _delete(handle, OF_RESULT)
        sweep(handle)


def sweep_all(folder: Path) -> None:
    """Delete what a process that was killed was writing."""
    for handle, _ in _folders(folder):
        sweep(handle)


def kept(folder: Path) -> list[str]:
    """The results in the folders of rounds and searches, by their paths below `folder`."""
    return sorted(
        str((place / name).relative_to(folder))
        for handle, place in _folders(folder)
        if RESULT.fullmatch(place.name) and place != folder
        for name in OF_RESULT
        if _is_file(handle, name)
    )


def _folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """The run's folder, that of its states, and those of rounds, which may lie in one of a method.

    Open; a link is never followed.
    """
    with held(open_folder(folder, make=False)) as handle:
        yield handle, folder
        for name in names_in(handle):
            if _is_folder(handle, name) and not AROUND.fullmatch(name):
                yield from _folder_below(handle, folder / name)


def _folder_below(above: int, place: Path) -> Iterator[tuple[int, Path]]:
    """One in the run's folder, and the results in it where it is a method's."""
    ours = _names_folder(place.name, top=True)
    with held(_opened(above, place.name)) as handle:
        if ours:
            yield handle, place
            return
        for name in names_in(handle):
            if name.startswith("round-") and RESULT.fullmatch(name) and _is_folder(handle, name):
                with held(_opened(handle, name)) as result:
                    yield result, place / name


def _opened(above: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)


def _is_folder(handle: int, name: str) -> bool:
    found = status_in(handle, name)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _is_file(handle: int, name: str) -> bool:
    found = status_in(handle, name)
    return found is not None and stat.S_ISREG(found.st_mode)


def _delete(handle: int, names: Iterable[str]) -> None:
    for name in names:
        if _is_file(handle, name):
            os.unlink(name, dir_fd=handle)
