"""A batch in pieces, for a network that does not fit into memory with all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from snnprune.data.batches import describe_batch
from snnprune.errors import InputError

EVENTS = 5  # dimensions of (T, N, C, H, W)


def split_batch(
    x: Any, y: Tensor, count: int, *, along: int | None = None
) -> Iterator[tuple[Any, Tensor]]:
    """The batch in `count` pieces, or in as many as it has samples if these are fewer.

    Samples lie along the dimension `along`, or without it along the one that is as long as `y`:
    events (T, N, ...) have time first.

    Raises:
        InputError: the batch is no single tensor, or events have as many steps as samples, so that
            it cannot be seen which is which.
    """
    count = min(count, len(y))
    if not isinstance(x, Tensor):
        yield _require_one_piece(x, count), y
        return
    unsure = along is None and x.dim() == EVENTS and x.shape[0] == x.shape[1]
    if count > 1 and unsure:
        raise InputError(
            f"a batch of shape {tuple(x.shape)} has as many time steps as samples",
            field="training.accumulate",
            hint="choose another batch size, or 1 piece",
        )
    if along is None:
        along = 0 if len(x) == len(y) else 1
    yield from zip(x.tensor_split(count, along), y.tensor_split(count), strict=True)


def _require_one_piece(batch: Any, count: int) -> Any:
    if count > 1:
        raise InputError(
            f"{describe_batch(batch)} cannot be cut",
            field="training.accumulate",
            hint="let the loader give smaller batches, and take 1 piece",
        )
    return batch
