"""A run as its loop sees it: rows, states and results that are kept, and a signal to stop.

The modules here are what a run in a folder keeps, so that it can go on after whatever ended it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Protocol

from torch import Tensor

from snnprune.distributed.ranks import Ranks
from snnprune.errors import InputError, StoppedError
from snnprune.masks import Masks
from snnprune.plugins import waiting
from snnprune.training.runs.state import START_AGAIN, State, list_differences, take_up

# a flag is set, and the loop saves its state after the step
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Slurm sends the last one on request
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
INTERRUPTED, TERMINATED = 130, 143


class StopSignal:
    """False until a signal asks the run to end."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, where: str) -> StoppedError:
        """What ends the loop; `where` is `in epoch 2 after step 3 of 54`."""
        asked = self.signal or signal.SIGTERM
        return StoppedError(
            f"{WORDS.get(asked, f'stopped by {asked.name}')} {where}",
            exit_code=INTERRUPTED if asked == signal.SIGINT else TERMINATED,
        )


NEVER = StopSignal()


@contextlib.contextmanager
def catch_signals() -> Iterator[StopSignal]:
    """The first signal is noted; a second one ends the process at once, as it would without us."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]  # as nohup sets

    def put_back() -> None:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)

    def note(number: int, _: FrameType | None) -> None:
        waiting.noted[number] += 1
        put_back()
        if signal.SIGUSR1 in heard:  # its default would leave a temporary file
            signal.signal(signal.SIGUSR1, before[signal.SIGTERM] or signal.SIG_DFL)
        stop.signal = signal.Signals(number)

    for number in heard:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        put_back()


Groups = Mapping[str, Mapping[str, Tensor]]


class Run(Protocol):
    """A run in a folder, or one that nobody keeps."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was logged so far, before the run was taken up again too."""
        ...

    def begin(self) -> State | None:
        """The state to go on from, or None at the start; called once, when all is set up."""
        ...

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics; the next state will know of it."""
        ...

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep a state; `number` grows with the batches done in the whole run."""
        ...

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a result, a model and what is alive of it, in `folder` of the run.

        `metadata` says what is otherwise than of the run as a whole.
        """
        ...


class Unsaved:
    """A run of which only the rows are kept, and in memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def begin(self) -> State | None:
        """None: it cannot be taken up."""
        return None

    def log(self, row: Mapping[str, Any]) -> None:
        """Remember the row."""
        self.rows.append(dict(row))

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep nothing."""

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Keep nothing."""


class SharedRun:
    """The first rank's `run`, of which the others see states and rows.

    Its methods are called by all ranks; what fails on the first ends the others too.
    """

    def __init__(self, run: Run | None, ranks: Ranks) -> None:
        """`run` is None on all ranks but the first."""
        self.run, self.ranks = run, ranks
        self.rows: list[dict[str, Any]] = []

    def begin(self) -> State | None:
        """The state to go on from, on every rank."""
        run = self.run
        found = self.ranks.share((run.begin(), run.rows) if run else None)
        assert found is not None
        state, rows = found
        self.rows = list(rows)
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics."""
        self.rows.append(dict(row))
        if self.run:
            self.run.log(row)

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep a state; the networks of all ranks are the same."""
        if self.run:
            self.run.save(number, position, groups)

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a result."""
        if self.run:
            self.run.keep(folder, tensors, masks, metadata)


class SharedStop(StopSignal):
    """True on every rank once a signal came to one; asking is a step that all take together.

    So it is once whoever started one of them is gone: nobody could end the others any more.
    """

    def __init__(self, own: StopSignal, ranks: Ranks) -> None:
        super().__init__()
        self.own, self.ranks, self.launcher = own, ranks, os.getppid()

    def __bool__(self) -> bool:
        self.signal = self.own.signal
        return self.ranks.any(bool(self.own) or self._is_left_alone())

    def error(self, where: str) -> StoppedError:
        """As of one process; or that the launcher was killed, as by the system for its memory."""
        if self.signal is None and self._is_left_alone():
            return StoppedError(f"the launcher is gone: stopped {where}", exit_code=TERMINATED)
        return super().error(where)

    def _is_left_alone(self) -> bool:
        return os.getppid() != self.launcher


INPUTS = "inputs"


class RunWithInputs:
    """`run`, whose states remember the SHA-256 of what it began with."""

    def __init__(self, run: Run, inputs: Mapping[str, str]) -> None:
        """`inputs` are the hashes by what the files are for."""
        self.run, self.inputs = run, dict(inputs)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the run."""
        return self.run.rows

    def begin(self) -> State | None:
        """The state to go on from.

        Raises:
            InputError: it is of a run that began with other files.
        """
        state = self.run.begin()
        if state is not None:
            with take_up(state):
                require_same_inputs(self.inputs, state.position.get(INPUTS, {}), state.path)
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics."""
        self.run.log(row)

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:
        """Keep a state."""
        self.run.save(number, {**position, INPUTS: self.inputs}, groups)

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a result."""
        self.run.keep(folder, tensors, masks, metadata)


def require_same_inputs(now: Mapping[str, str], of_run: Mapping[str, str], where: object) -> None:
    """Refuse to go on with other files.

    Raises:
        InputError: a hash differs, or one of them was not there; both are told.
    """
    if found := list_differences(of_run, now):
        raise InputError("; ".join(found), file=where, hint=f"give the same files; {START_AGAIN}")
