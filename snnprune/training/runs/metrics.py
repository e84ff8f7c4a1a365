"""The rows of a run as scalars for TensorBoard, which may fail without ending the run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from snnprune.errors import InputError
from snnprune.errors.text import format_split, make_printable
from snnprune.files.folders import as_output_error, close_after, open_file_in, open_folder
from snnprune.files.writing import write_text
from snnprune.training.runs.state import START_AGAIN

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
        lines = self._read_whole_lines()[:count]
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
        with as_output_error(self.path), self._open_file(ADDING) as handle:
            with os.fdopen(handle, "a", encoding="utf-8", newline="\n", closefd=False) as file:
                file.write(line)
            os.fsync(handle)
        self.rows.append(dict(row))

    def _read_whole_lines(self) -> list[str]:
        with as_output_error(self.path):
            try:
                with self._open_file(os.O_RDONLY) as handle:
                    text = _read_text(handle)
            except FileNotFoundError:
                return []
        return [f"{line}\n" for line in text.split("\n")[:-1]]  # what follows the last \n was cut

    def _open_file(self, flags: int) -> contextlib.AbstractContextManager[int]:
        return open_file_in(self.path.parent, [self.path.name], flags)

    def _row(self, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
            json.dumps(row, allow_nan=False)  # NaN and 1e999 are no numbers of ours
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError("holds a line that is no row", file=self.path, hint=START_AGAIN)
        return row


def _read_text(handle: int) -> str:
    with os.fdopen(handle, encoding="utf-8", errors="replace", closefd=False) as file:
        return file.read()


FOLDER = "tensorboard"
MEASURED = (  # of rows about epochs and about tickets
    *("train_loss", "train_accuracy", "validation_accuracy", "learning_rate"),
    *("images_per_second", "sparsity_asked"),
)


class TensorBoard:
    """An event file in a folder; what goes wrong there is told once and ends the writing.

    It is written here and now, not in the thread of torch's `SummaryWriter`, which prints a
    traceback of its own where a disk is full.
    """

    def __init__(
        self, folder: Path, *, after: int | None = None, warn: Callable[[str], None]
    ) -> None:
        """`after` is the number of the state that the run goes on from, None at its beginning.

        What was written for later numbers, by a run that was killed before its next state or by
        an older run in the same folder, is shown no more.
        """
        self.folder, self.warn = folder, warn
        self._file: BinaryIO | None = None
        with self._warn_of_errors():
            from tensorboard.compat.proto.event_pb2 import SessionLog

            # the names of later files sort after those of earlier ones
            name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
            self._file = _create_file(folder, name)
            self._write(file_version="brain.Event:2")
            purged = 0 if after is None else after + 1
            self._write(step=purged, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()

    def add(self, row: Mapping[str, Any], number: int) -> None:
        """Write what a row measures, `number` batches into the run."""
        if self._file is None:
            return
        with self._warn_of_errors():
            from torch.utils.tensorboard.summary import scalar

            for name, value in iter_scalars(row):
                self._write(step=number, summary=scalar(name, value))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._warn_of_errors():
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, **event: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(Event(wall_time=time.time(), **event).SerializeToString())

    @contextmanager
    def _warn_of_errors(self) -> Iterator[None]:
        """A block whose errors, whatever they are, become a warning and end the writing."""
        try:
            yield
        except Exception as error:
            with suppress(OSError):
                self._close()
            missing = isinstance(error, ImportError)
            reason = "the package tensorboard cannot be imported" if missing else repr(error)
            self.warn(f"{self.folder}: no more TensorBoard events: {make_printable(reason)}")


def _create_file(folder: Path, name: str) -> BinaryIO:
    """A new file; a link in the place of its folder is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with close_after(open_folder(folder.parent, [folder.name])) as handle:
        return os.fdopen(os.open(name, flags, 0o666, dir_fd=handle), "wb")


def iter_scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and finite values of what a row measures, below the name of its method."""
    method = f"{row['method']}/" if "method" in row else ""
    for name, value in _iter_measured(row):
        if value is not None and math.isfinite(value):
            yield make_printable(f"{method}{name}"), float(value)


def _iter_measured(row: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """As rows have it, with shares in place of counts."""
    yield from ((name, row[name]) for name in MEASURED if name in row)
    if "pruned" in row:
        yield "sparsity", row["pruned"] / row["prunable"]
    found = row.get("test") or row.get("measured") or {"labelled": 0}
    if found["labelled"]:
        images = format_split(found.get("images", "test"))
        yield f"{images}_accuracy", found["correct"] / found["labelled"]
        yield f"{images}_loss", found["loss_sum"] / found["labelled"]
    for name, rate in found.get("firing_rates", {}).items():
        yield f"firing_rate/{name}", rate
    for layer in row.get("layers", ()):
        yield f"density/{layer['weight']}", layer["kept"] / layer["weights"]
