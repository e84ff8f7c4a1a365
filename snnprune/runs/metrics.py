"""`metrics.jsonl`: one JSON object per line, appended as a run goes on."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.errors import InputError
from snnprune.files import as_output_error, opened_in, write_text
from snnprune.runs.state import START_AGAIN

ADDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Metrics:
    """The lines of the file, as rows in memory too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def cut(self, count: int) -> None:
        """Keep the first `count` lines, those that the state knows of; 0 makes an empty file.

        Raises:
            InputError: there are fewer, or one is no row.
        """
        lines = self._whole_lines()[:count]
        if len(lines) < count:
            raise InputError(
                f"has {len(lines)} whole lines, {count} were written",
                file=self.path,
                hint=START_AGAIN,
            )
        self.rows = [self._row(line) for line in lines]
        write_text(self.path, "".join(lines), within=self.path.parent)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line, on disk when this returns.

        Raises:
            OutputError: it cannot be written, or is no file of ours.
        """
        line = json.dumps(row, allow_nan=False) + "\n"
        with as_output_error(self.path), self._opened(ADDING) as handle:
            with os.fdopen(handle, "a", encoding="utf-8", newline="\n", closefd=False) as file:
                file.write(line)
            os.fsync(handle)
        self.rows.append(dict(row))

    def _whole_lines(self) -> list[str]:
        with as_output_error(self.path):
            try:
                with self._opened(os.O_RDONLY) as handle:
                    text = _text_of(handle)
            except FileNotFoundError:
                return []
        return [f"{line}\n" for line in text.split("\n")[:-1]]  # what follows the last \n was cut

    def _opened(self, flags: int) -> contextlib.AbstractContextManager[int]:
        return opened_in(self.path.parent, [self.path.name], flags)

    def _row(self, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
            json.dumps(row, allow_nan=False)  # NaN and 1e999 are no numbers of ours
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError("holds a line that is no row", file=self.path, hint=START_AGAIN)
        return row


def _text_of(handle: int) -> str:
    with os.fdopen(handle, encoding="utf-8", errors="replace", closefd=False) as file:
        return file.read()
