"""What a loop sees of the place where its run is kept."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from snnprune.mask import Masks
from snnprune.runs.state import State

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
