"""What every opener returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snnprune.data.augmentation import Augmentation


class Split(Protocol):
    """Samples that can be gone through any number of times, always in the same order."""

    def batches(
        self, batch_size: int, *, limit: int | None = None, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[Any, Tensor | None]]:
        """Pairs (x, y) on `device`, ready for the model; y is None where no labels are known.

        `limit` is the number of samples after which it ends.
        """
        ...


class TrainingSplit(Split, Protocol):
    """Samples that can be trained on."""

    def steps(self, batch_size: int) -> int:
        """How many batches `shuffled` gives."""
        ...

    def shuffled(
        self,
        batch_size: int,
        *,
        key: tuple[object, ...],
        device: str | torch.device,
        augment: Augmentation,
        start: int = 0,
    ) -> Iterator[tuple[Any, Tensor | None]]:
        """Batches in an order that, like what is done to them, depends on `key` alone.

        The first `start` batches are left out; the others are the same without them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, opened; what is not known of it is None."""

    name: str
    """As the user wrote it."""
    classes: int | None
    channels: int | None
    size: int | None
    """The side of its square pictures, in pixels."""
    train: Split | None
    validation: Split | None
    test: Split | None
