"""Reading a checkpoint of any container: its tensors, or only what they are called."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from snnprune.checkpoint import nir, packed, shards
from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.contents import Contents
from snnprune.checkpoint.sniff import sniff_container
from snnprune.checkpoint.soundness import require_sound
from snnprune.checkpoint.torch import torch_file
from snnprune.checkpoint.torch.state_dict import FLAG
from snnprune.checkpoint.weights import strip_prefixes
from snnprune.errors import InputError
from snnprune.files.readable import require_unchanging
from snnprune.files.writing import hash_file
from snnprune.version import KEY, __version__

Reader = Callable[[Path], Contents]

READERS: dict[str, Reader] = {
    "safetensors": packed.read,
    "sharded-safetensors": shards.read,
    "torch": torch_file.read,
    "nir": nir.read,
}

OUTLINES: dict[str, Reader] = {
    "safetensors": packed.read_outline,
    "sharded-safetensors": shards.read_outline,
    "torch": torch_file.read_outline,
    "nir": nir.read_outline,
}


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


def read_checkpoint(
    path: Path, *, allow_nonfinite: bool = False, entry: str | None = None
) -> Checkpoint:
    """Read a checkpoint, never running code that is in it.

    Of a torch file with several state dicts, `entry` names one by the keys that lead to it:
    `model_ema`, `model.state_dict`, `.` for the top.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, holds code or lies about
            its tensors, has no such entry, or holds values that no network can have (see
            `require_sound`).
    """
    container = sniff_container(path)
    with require_unchanging(*_files_of(path, container)):  # the hash is to be that of what was read
        contents = _read(READERS, container, path, entry)
        sha256 = hash_checkpoint(path, container)
    tensors, stripped, notes = strip_prefixes(contents.tensors)
    odd = require_sound(tensors, path, allow_nonfinite=allow_nonfinite)
    return Checkpoint(
        path=path,
        container="packed" if contents.packed else container,
        tensors=tensors,
        metadata=contents.metadata,
        sha256=sha256,
        notes=(*contents.notes, *notes, *odd, *_note_future_version(contents.metadata)),
        names={key: contents.names.get(name, name) for key, name in stripped.items()},
        entry=contents.entry,
        odd=contents.odd,
    )


def describe_checkpoint(path: Path, *, entry: str | None = None) -> Description:
    """What `read_checkpoint` would find, whatever the values; of safetensors the header only.

    Raises:
        InputError: the file is not there, not a checkpoint, damaged, holds code, or has no such
            entry.
    """
    container = sniff_container(path)
    files = _files_of(path, container)
    with require_unchanging(*files):
        contents = _read(OUTLINES, container, path, entry)
        size = sum(file.stat().st_size for file in files)
    tensors, _, notes = strip_prefixes(contents.tensors)
    return Description(
        path=path,
        container="packed" if contents.packed else container,
        size_bytes=size,
        tensors=tuple(_make_info(name, tensor) for name, tensor in tensors.items()),
        metadata=contents.metadata,
        notes=(*contents.notes, *notes, *_note_future_version(contents.metadata)),
    )


def files_of(path: Path) -> list[Path]:
    """The files that a checkpoint is: the one that is named and, where it is an index, its shards.

    Raises:
        InputError: the file is not there or no checkpoint, or the index names other places.
    """
    return _files_of(path, sniff_container(path))


def hash_checkpoint(path: Path, container: str) -> str:
    """The SHA-256 of the file; of an index and its shards together."""
    return shards.hash_all_files(path) if container == "sharded-safetensors" else hash_file(path)


def _files_of(path: Path, container: str) -> list[Path]:
    return shards.files_of(path) if container == "sharded-safetensors" else [path]


def _read(readers: Mapping[str, Reader], container: str, path: Path, entry: str | None) -> Contents:
    if entry is None:
        return readers[container](path)
    if container == "torch":
        return torch_file.read(path, entry=entry)
    raise InputError(
        "only torch files hold several state dicts", file=path, field=FLAG, hint="leave it out"
    )


def _note_future_version(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """A note on a file that says that a later snnprune wrote it."""
    text = metadata.get(KEY, "")
    said, ours = _parse_version(text), _parse_version(__version__)
    if said is None or ours is None or said <= ours:
        return ()
    return (f"says that snnprune {text} wrote it, this is {__version__}: update if it looks odd",)


def _parse_version(version: str) -> tuple[int, ...] | None:
    """The numbers of a version as 0.1.0; None where it does not begin so."""
    found = re.match(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", version)
    return None if found is None else tuple(int(number or 0) for number in found.groups())


def _make_info(name: str, tensor: Tensor) -> TensorInfo:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(tensor.shape))
