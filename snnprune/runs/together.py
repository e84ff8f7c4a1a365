"""A run of several processes: the first one writes, all of them know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from snnprune.distributed import Ranks
from snnprune.errors import StoppedError
from snnprune.mask import Masks
from snnprune.runs.run import Groups, Run
from snnprune.runs.state import State
from snnprune.runs.stopping import TERMINATED, Stop


class RunTogether:
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
        found = self.ranks.shared((run.begin(), run.rows) if run else None)
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


class StopTogether(Stop):
    """True on every rank once a signal came to one; asking is a step that all take together.

    So it is once whoever started one of them is gone: nobody could end the others any more.
    """

    def __init__(self, own: Stop, ranks: Ranks) -> None:
        super().__init__()
        self.own, self.ranks, self.launcher = own, ranks, os.getppid()

    def __bool__(self) -> bool:
        self.signal = self.own.signal
        return self.ranks.any(bool(self.own) or self._left_alone())

    def error(self, where: str) -> StoppedError:
        """As of one process; or that the launcher was killed, as by the system for its memory."""
        if self.signal is None and self._left_alone():
            return StoppedError(f"the launcher is gone: stopped {where}", exit_code=TERMINATED)
        return super().error(where)

    def _left_alone(self) -> bool:
        return os.getppid() != self.launcher
