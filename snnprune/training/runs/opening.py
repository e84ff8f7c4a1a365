"""Whether a folder may be written to by a run, and taking it."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from snnprune.errors import InputError, OutputError
from snnprune.files.folders import as_output_error
from snnprune.files.writing import require_writable_folder
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.training.runs import ownership
from snnprune.training.runs.changes import require_same
from snnprune.training.runs.folder import TEMPORARY, RunFolder
from snnprune.training.runs.ownership import DONE, RECIPE, require_ours


@contextlib.contextmanager
def open_run(
    folder: Path,
    recipe: Recipe,
    made: Mapping[str, str],
    *,
    metadata: Mapping[str, str] = MappingProxyType({}),
    resume: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
    allowed: Collection[str] = (),
) -> Iterator[RunFolder]:
    """Lock `folder` for a run of the resolved `recipe`; nothing in it changes before it begins.

    `made` says what the run is made with, `metadata` what the files say that it keeps, `say` is
    told where it goes on, and `allowed` are the names in `made` that may have changed.

    Raises:
        OutputError: another process has it, see `require_ready`, or it cannot be written.
        InputError: there is no run to resume, or one of another recipe.
    """
    with ownership.lock_folder(folder) as warnings:
        try:
            require_ready(folder, resume=resume, force=force)
            if resume:
                require_same(recipe, load_recipe(str(folder / RECIPE)), folder)
                # a whole run, too, may have been killed after its last file
                with as_output_error(folder):
                    ownership.sweep_all(folder)
            run = RunFolder(
                folder, recipe, made, metadata=metadata, resume=resume, say=say, allowed=allowed
            )
            run.warnings += warnings
            with contextlib.closing(run):
                yield run
        finally:
            if not _list_contents(folder):  # it did not come to a beginning
                (folder / ownership.NAME).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    folder.rmdir()


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
    if _list_contents(folder):
        raise OutputError("is not empty", file=folder, hint="--force replaces what is in it")


def holds_run(folder: Path) -> bool:
    """Whether there is a run in it, finished or not, or one for each of several seeds.

    Or one for each pair of a grid, which has the recipe of all around them.
    """
    marks = (ownership.NAME, DONE)
    if (folder / RECIPE).is_file():
        begun = any((folder / mark).exists() for mark in marks)
        return begun or any(folder.glob(f"*/{RECIPE}"))
    return any(folder.glob(f"seed-*/{RECIPE}"))


def _list_contents(folder: Path) -> list[Path]:
    """What is in it, beside what a run that never began left."""
    if not folder.is_dir():
        return []
    left = {folder / ownership.NAME, *folder.glob(TEMPORARY)}
    return [path for path in folder.iterdir() if path not in left]
