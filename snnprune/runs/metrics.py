"""`metrics.jsonl`: one JSON object per line, appended as a run goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.errors import InputError
from snnprune.files import as_output_error, write_text
from snnprune.runs.state import START_AGAIN


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
        write_text(self.path, "".join(lines))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line, on disk when this returns.

        Raises:
            OutputError: it cannot be written.
        """
        with (
            as_output_error(self.path),
            self.path.open("a", encoding="utf-8", newline="\n") as file,
        ):
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(dict(row))

    def _whole_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return [f"{line}\n" for line in text.split("\n")[:-1]]  # what follows the last \n was cut

    def _row(self, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError("holds a line that is no row", file=self.path, hint=START_AGAIN)
        return row
