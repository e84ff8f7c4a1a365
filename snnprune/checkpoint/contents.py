"""What every container holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tensors and text of a file, before anything is said about their values."""

    tensors: dict[str, Tensor]
    """On the CPU (or on `meta`, where only the outline was read), in the file's order."""
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was done on the way in, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The name in the file of each tensor that goes by a shorter one here."""
    packed: bool = False
    """Whether the zeros were left out of the file."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""
    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""
