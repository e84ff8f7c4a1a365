"""A batch in pieces, for a network that does not fit into memory with all of it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from snnprune.errors import InputError

EVENTS = 5  # dimensions of (T, N, C, H, W)


def pieces(x: Tensor, y: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batch in `count` pieces, or in as many as it has samples if these are fewer.

    Samples lie along the dimension that is as long as `y`: events (T, N, ...) have time first.

    Raises:
        InputError: events have as many steps as samples, so that it cannot be seen which is which.
    """
    count, along = min(count, len(y)), 0 if len(x) == len(y) else 1
    if count > 1 and x.dim() == EVENTS and x.shape[0] == x.shape[1]:
        raise InputError(
            f"a batch of shape {tuple(x.shape)} has as many time steps as samples",
            field="training.accumulate",
            hint="choose another batch size, or 1 piece",
        )
    yield from zip(x.tensor_split(count, along), y.tensor_split(count), strict=True)
