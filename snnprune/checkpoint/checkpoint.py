"""A checkpoint in memory, the keys that its tensors have in its file, and what a file holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from snnprune.errors import InputError
from snnprune.errors.text import format_count


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


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's tensors as they were stored, and its text."""

    path: Path
    container: str
    """`safetensors`, `packed`, `sharded-safetensors`, `torch` or `nir`."""
    tensors: dict[str, Tensor]
    """On the CPU, in the file's order."""
    metadata: dict[str, str]
    """Of safetensors; empty for other files."""
    sha256: str
    """Of the file; of a sharded checkpoint, see `shards.hash_all_files`."""
    notes: tuple[str, ...]
    """What was done on the way in and what looks odd, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The key in the file of every key of `tensors`."""
    folded: Mapping[str, str] = field(default_factory=dict)
    """Keys of the file that were folded into one tensor, and the key that replaces them there."""
    dropped: frozenset[str] = frozenset()
    """Keys of the file that are not written again."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""

    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""

    def in_file(self, values: Mapping[str, T]) -> dict[str, T]:
        """The same values by the keys of the file: `module.fc.weight` for `fc.weight`."""
        return {self.names.get(key, key): value for key, value in values.items()}


def strip_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The checkpoint with `prefix` taken off the keys that have it; the other keys stay.

    Raises:
        InputError: two tensors would have one key then.
    """
    short = {key: key.removeprefix(prefix) or key for key in checkpoint.tensors}
    seen: dict[str, str] = {}
    for key, new in short.items():
        if new in seen:
            raise InputError(
                f"is {new} without the prefix {prefix}, which {seen[new]} is too",
                file=checkpoint.path,
                field=key,
                hint="rename one of them",
            )
        seen[new] = key
    count = sum(new != key for key, new in short.items())
    return replace(
        checkpoint,
        tensors={short[key]: tensor for key, tensor in checkpoint.tensors.items()},
        names={short[key]: checkpoint.names.get(key, key) for key in checkpoint.tensors},
        notes=(
            *checkpoint.notes,
            f"stripped the prefix {prefix} from {format_count(count, 'key')}",
        ),
    )
