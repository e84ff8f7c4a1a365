"""What the system refuses, as an error of the output."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from snnprune.errors import OutputError


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """What goes wrong in the block goes wrong in writing `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"cannot be written: {reason}",
            file=path,
            hint="free some space or choose another place",
        ) from error
