"""The folder of a run: recipe, metrics, events for TensorBoard, states, results, `DONE` last."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from torch import Tensor

from snnprune.checkpoint.mask_file import write_masks
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError, format_split, make_printable
from snnprune.files.writing import (
    as_output_error,
    close_after,
    open_file_in,
    open_folder,
    replace_together,
    write_text,
)
from snnprune.masks import Masks
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.recipe.yaml_text import dump_recipe
from snnprune.training.runs import Groups
from snnprune.training.runs.ownership import (
    DONE,
    MASK,
    METRICS,
    MODEL,
    NAME,
    RECIPE,
    STATES,
    TENSORBOARD,
    clear,
    list_contents,
    list_results,
    lock_folder,
    require_ready,
    sweep_all,
    vouch,
)
from snnprune.training.runs.state import (
    START_AGAIN,
    State,
    StateStore,
    check_differences,
    read_count,
    require_names,
    require_same,
    take_up,
)


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
    with lock_folder(folder) as warnings:
        try:
            require_ready(folder, resume=resume, force=force)
            if resume:
                require_same(recipe, load_recipe(str(folder / RECIPE)), folder)
                # a whole run, too, may have been killed after its last file
                with as_output_error(folder):
                    sweep_all(folder)
            run = RunFolder(
                folder, recipe, made, metadata=metadata, resume=resume, say=say, allowed=allowed
            )
            run.warnings += warnings
            with contextlib.closing(run):
                yield run
        finally:
            if not list_contents(folder):  # it did not come to a beginning
                (folder / NAME).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    folder.rmdir()


class RunFolder:
    """A folder that this process has locked."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        made: Mapping[str, str],
        *,
        metadata: Mapping[str, str],
        resume: bool,
        say: Callable[[str], None],
        allowed: Collection[str] = (),
    ) -> None:
        """`recipe` is resolved; `made` says what the run is made with, `metadata` what is kept.

        `allowed` are the names in `made` that may have another value than before.
        """
        self.folder, self.recipe, self.made = folder, recipe, dict(made)
        self.metadata = metadata
        self.resume, self.say, self.allowed = resume, say, allowed
        self.metrics = Metrics(folder / METRICS)
        self.states = StateStore(folder / STATES)
        self.warnings: list[str] = []
        self.board: TensorBoard | None = None

    def is_finished(self) -> bool:
        """Whether it holds a whole run that is to be left alone."""
        return self.resume and (self.folder / DONE).exists()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`."""
        return self.metrics.rows

    def begin(self) -> State | None:
        """The newest whole state, with the metrics cut back to it; None in a new run.

        Raises:
            InputError: no state is whole, or the metrics are not; or it was made with something
                else, which is not allowed.
            OutputError: nothing can be written.
        """
        with as_output_error(self.folder):
            state = self._resume() if self.resume else None
            if not self.resume:
                self._start()
        if self.recipe.output.tensorboard:
            after = self._count_epochs() if self.rows else None
            folder = self.folder / TENSORBOARD
            self.board = TensorBoard(folder, after=after, warn=self.warnings.append)
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to `metrics.jsonl`, and show it in TensorBoard at the epochs so far."""
        self.metrics.add(row)
        if self.board:
            self.board.add(row, self._count_epochs())

    def close(self) -> None:
        """Write nothing more."""
        if self.board:
            self.board.close()

    def _count_epochs(self) -> int:
        return sum(row.get("kind") == "epoch" for row in self.rows)

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep a state in `state/`, beside the one before."""
        known = {
            "loop": dict(position),
            "rows": len(self.rows),
            "made_with": self.made,
            "warnings": self.warnings,
        }
        filled = {group: named for group, named in groups.items() if named}
        self.states.save(number, State(position=known, groups=filled))

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write `FOLDER/model.safetensors` and, where something is pruned, its masks beside it."""
        self.write({MODEL: tensors}, masks, {**self.metadata, **(metadata or {})}, folder)

    def write(
        self,
        networks: Mapping[str, Mapping[str, Tensor]],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
        folder: str = "",
    ) -> list[str]:
        """Write networks, those that have tensors, and their masks together; the files' names.

        Raises:
            OutputError: they cannot be written.
        """
        told = self.metadata if metadata is None else metadata
        filled = {name: tensors for name, tensors in networks.items() if tensors}
        names = [*filled, *([MASK] if masks else [])]
        place = self.folder / folder
        with replace_together(*(place / name for name in names), within=self.folder) as staged:
            for path, tensors in zip(staged, filled.values(), strict=False):
                write_safetensors(path, tensors, told)
            if masks:
                write_masks(staged[-1], masks, told)
        return names

    def finish(self, results: Iterable[str]) -> None:
        """Hash the recipe, the metrics, what was kept and `results`; say that the run is whole."""
        vouch(self.folder, (RECIPE, METRICS, *list_results(self.folder), *results))

    def _write(self, name: str, text: str) -> None:
        write_text(self.folder / name, text, within=self.folder)

    def _start(self) -> None:
        """Make the folder that of a new run."""
        clear(self.folder)
        self._write(RECIPE, dump_recipe(self.recipe))
        with close_after(open_folder(self.folder, [STATES])):
            pass  # it is there now
        self.metrics.cut(0)

    def _resume(self) -> State | None:
        state, warnings = self.states.read_newest()
        self.warnings += warnings
        if state is None:  # it ended in its first epoch
            self.metrics.cut(0)
            return None
        self.say(f"going on from {state.path}")
        with take_up(state):
            known = state.position
            told = check_differences(known["made_with"], self.made, self.allowed, self.folder)
            require_names(known, ("loop", "rows", "made_with", "warnings"))
            if not isinstance(known["warnings"], list) or not all(
                isinstance(line, str) for line in known["warnings"]
            ):
                raise ValueError("its warnings are not lines of text")
            self.metrics.cut(read_count(known, "rows"))
            self.warnings = [*known["warnings"], *self.warnings, *told]
            return replace(state, position=known["loop"])


ADDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Metrics:
    """The lines of `metrics.jsonl`, as rows in memory too."""

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

    @contextlib.contextmanager
    def _warn_of_errors(self) -> Iterator[None]:
        """A block whose errors, whatever they are, become a warning and end the writing."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):
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
