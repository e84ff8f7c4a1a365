"""State that a network carries from one batch into the next, where it must not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from snnprune.errors import InputError

SAID_BY_TORCH = "backward through the graph a second time"


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
