"""That a run folder is whole, and the hashes of what is in it."""

from collections.abc import Iterable
from pathlib import Path

from snnprune.files import as_output_error, sums_of, together
from snnprune.runs.ours import DONE, SUMS


def vouch(folder: Path, names: Iterable[str]) -> None:
    """Write the hashes of files of a folder, and that it is whole, together.

    Raises:
        OutputError: a file cannot be read, or these cannot be written.
    """
    with as_output_error(folder):
        lines = sums_of(folder, names)
    with together(folder / DONE, folder / SUMS, within=folder) as (done, sums):
        sums.write_text(lines, encoding="utf-8", newline="\n")
        done.touch()


def begin_again(folder: Path) -> None:
    """The folder is not whole from here on."""
    for name in (DONE, SUMS):
        (folder / name).unlink(missing_ok=True)


def sums_below(folder: Path, names: Iterable[str]) -> list[str]:
    """The lists of hashes in folders of that name, which vouch for what is in them."""
    return [f"{name}/{SUMS}" for name in names if (folder / name / SUMS).is_file()]
