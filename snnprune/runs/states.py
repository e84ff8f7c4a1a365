"""The folder `state/`: the two newest states of a run."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from snnprune.errors import InputError
from snnprune.files import held, names_in, open_folder
from snnprune.runs.state import START_AGAIN, State, read_state, write_state

NAME = re.compile(r"step-(\d+)\.safetensors")


class States:
    """States by the number of batches that were done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, number: int, state: State) -> None:
        """Write a state; then it and the one before it are kept.

        Raises:
            OutputError: it cannot be written; the older ones are as they were.
        """
        path = self.folder / f"step-{number:06}.safetensors"
        write_state(path, state, within=self.folder.parent)
        numbered = self._numbered()
        kept = {number, max((other for other in numbered if other < number), default=number)}
        for other, path in numbered.items():
            if other not in kept:  # also later ones, which were damaged and gone back from
                with contextlib.suppress(OSError):
                    self._delete([path])

    def newest(self) -> tuple[State | None, tuple[str, ...]]:
        """The newest state that is whole, and a warning for each later one; None without any.

        Raises:
            InputError: there are states, and all are damaged.
        """
        warnings: list[str] = []
        for _, path in sorted(self._numbered().items(), reverse=True):
            try:
                return read_state(path), tuple(warnings)
            except InputError as error:
                warnings.append(f"{path}: {error.message}; went on from the state before it")
                last = error
        if not warnings:
            return None, ()
        raise InputError(
            f"no state is whole: the last one {last.message}", file=last.file, hint=START_AGAIN
        )

    def newest_path(self) -> Path | None:
        """The file of the newest state, unread."""
        numbered = self._numbered()
        return numbered[max(numbered)] if numbered else None

    def clear(self) -> None:
        """Delete them all."""
        self._delete(self._numbered().values())

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with self._opened() as handle:
                os.unlink(path.name, dir_fd=handle)

    def _opened(self) -> contextlib.AbstractContextManager[int]:
        """The folder; a link in its place is not followed."""
        return held(open_folder(self.folder.parent, [self.folder.name], make=False))

    def _numbered(self) -> dict[int, Path]:
        """By number: as text, 999999 would come after 1000000."""
        try:
            with self._opened() as handle:
                names = names_in(handle)
        except OSError:
            return {}
        matches = filter(None, map(NAME.fullmatch, names))
        return {int(match[1]): self.folder / match[0] for match in matches}
