"""A run that began with files goes on with the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from snnprune.errors import InputError
from snnprune.mask import Masks
from snnprune.runs.changes import differences
from snnprune.runs.run import Groups, Run
from snnprune.runs.state import START_AGAIN, State, taking_up

INPUTS = "inputs"


class RunFrom:
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
            with taking_up(state):
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
    if found := differences(of_run, now):
        raise InputError("; ".join(found), file=where, hint=f"give the same files; {START_AGAIN}")
