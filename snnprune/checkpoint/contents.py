"""What every container holds."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tensors and text of a file, before anything is said about their values."""

    tensors: dict[str, Tensor]
    """On the CPU (or on `meta`, where only the outline was read), in the file's order."""
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was done on the way in, one line each."""
