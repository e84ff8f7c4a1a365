"""Reading a checkpoint of any container: its tensors, or only what they are called."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint import safetensors_file, torch_file
from snnprune.checkpoint.contents import Contents
from snnprune.checkpoint.prefixes import without_prefixes
from snnprune.checkpoint.sniff import container_of
from snnprune.checkpoint.soundness import require_sound
from snnprune.files import sha256_of

Reader = Callable[[Path], Contents]

READERS: dict[str, Reader] = {"safetensors": safetensors_file.read, "torch": torch_file.read}

# A torch file has no header: its tensors are known once it is loaded.
OUTLINES: dict[str, Reader] = {"safetensors": safetensors_file.outline, "torch": torch_file.read}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's tensors as they were stored, and its text."""

    path: Path
    container: str
    """`safetensors` or `torch`."""
    tensors: dict[str, Tensor]
    """On the CPU, in the file's order."""
    metadata: dict[str, str]
    """Empty for torch files."""
    sha256: str
    notes: tuple[str, ...]
    """What was done on the way in and what looks odd, one line each."""
    prefix: str = ""
    """What every key had before it in the file, such as `module.`; a drop-in has it again."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file says of one tensor."""

    name: str
    dtype: str
    """As torch spells it: `float32`."""
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is in a file, without its values."""

    path: Path
    container: str
    size_bytes: int
    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def read_checkpoint(path: Path, *, allow_nonfinite: bool = False) -> Checkpoint:
    """Read a checkpoint, never running code that is in it.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, holds code or lies about
            its tensors, or holds values that no network can have (see `require_sound`).
    """
    container = container_of(path)
    contents = READERS[container](path)
    tensors, stripped = without_prefixes(contents.tensors)
    odd = require_sound(tensors, path, allow_nonfinite=allow_nonfinite)
    return Checkpoint(
        path=path,
        container=container,
        tensors=tensors,
        metadata=contents.metadata,
        sha256=sha256_of(path),
        notes=(*contents.notes, *stripped, *odd),
        prefix=next(iter(contents.tensors), "").removesuffix(next(iter(tensors), "")),
    )


def describe(path: Path) -> Description:
    """What `read_checkpoint` would find, whatever the values; of safetensors the header only.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, or holds code.
    """
    container = container_of(path)
    contents = OUTLINES[container](path)
    tensors, stripped = without_prefixes(contents.tensors)
    return Description(
        path=path,
        container=container,
        size_bytes=path.stat().st_size,
        tensors=tuple(_info(name, tensor) for name, tensor in tensors.items()),
        metadata=contents.metadata,
        notes=(*contents.notes, *stripped),
    )


def _info(name: str, tensor: Tensor) -> TensorInfo:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(tensor.shape))
