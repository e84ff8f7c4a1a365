"""What torch says of a batch that a network cannot be trained on, in words about the network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from snnprune.errors import InputError

SAID_BY_TORCH = "backward through the graph a second time"
SINGLE = ("Expected more than 1 value per channel", "a batch of one value per channel")


@contextlib.contextmanager
def refusing_leftovers() -> Iterator[None]:
    """In the block `backward` must not reach into the batch before.

    Raises:
        InputError: it does: the network's own neurons were not at rest when the batch began.
    """
    try:
        yield
    except RuntimeError as error:
        if SAID_BY_TORCH not in str(error):
            raise
        raise InputError(
            "its neurons keep their state from one batch to the next",
            field="model.name",
            hint="begin its forward by resetting them, or name a function that does: model.forward",
        ) from error


@contextlib.contextmanager
def refusing_single_samples() -> Iterator[None]:
    """In the block a BatchNorm must have more than one value to normalise.

    Raises:
        InputError: it has one, as of the only sample of a last batch.
    """
    try:
        yield
    except (ValueError, InputError) as error:
        if not any(said in str(error) for said in SINGLE):
            raise
        raise InputError(
            "a batch of one sample has no variance, by which its BatchNorm normalises",
            field="data.name",
            hint="leave a last batch of one out, as a DataLoader does with drop_last=True, or "
            "choose another training.batch_size",
        ) from error
