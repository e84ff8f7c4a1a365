"""A run that began with files goes on with the same ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from snnprune.distributed.ranks import Ranks
from snnprune.errors import InputError, StoppedError
from snnprune.masks import Masks
from snnprune.training.runs.changes import list_differences
from snnprune.training.runs.state import START_AGAIN, State, take_up
from snnprune.training.runs.stopping import TERMINATED, StopSignal

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
