"""The state_dict in a torch file, and whether its tensors are what they claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.containers.contents import Contents
from snnprune.checkpoint.containers.torch.archive import Archive, read_archive
from snnprune.checkpoint.containers.torch.state_dict import notes_on, state_dict_in
from snnprune.checkpoint.containers.torch.tensors import Storage, Stored
from snnprune.checkpoint.naming import first_few, is_text
from snnprune.errors import InputError
from snnprune.readable import reading

PLAIN = (
    *("torch.", "collections.", "argparse.Namespace", "numpy.", "_codecs.encode", "datetime."),
    *("pathlib.", "copyreg._reconstructor", "copy_reg._reconstructor", "builtins.object"),
    *("builtins.set", "builtins.frozenset", "builtins.complex", "builtins.slice"),
    *("lightning.", "lightning_fabric.", "pytorch_lightning."),
)
"""Beginnings of names of what trainers' files hold."""


def read(path: Path, *, entry: str | None = None) -> Contents:
    """The state_dict in the file, on the CPU; of several the one under `entry`.

    Raises:
        InputError: the file is damaged, holds no state_dict, or lies about a tensor.
    """
    archive = read_archive(path)
    found = state_dict_in(archive.value, path, entry)
    if not found.tensors:
        name, kind = next(iter(found.odd.items()))
        raise InputError(f"is no dense tensor, but {kind}; there is none", file=path, field=name)
    for name, tensor in found.tensors.items():
        _require_honest(name, tensor, archive)
    return Contents(
        tensors=_values(found.tensors, archive),
        metadata={},
        notes=(*notes_on(found, archive.value), *_foreign(archive)),
        entry=found.entry,
        odd=found.odd,
    )


def _values(tensors: Mapping[str, Stored], archive: Archive) -> dict[str, Tensor]:
    """The tensors themselves; those of one storage share it."""
    read: dict[Storage, torch.UntypedStorage] = {}
    with reading(archive.path) as file:
        for stored in tensors.values():
            if stored.storage not in read:
                read[stored.storage] = archive.storage(file, stored.storage)
    return {name: stored.of(read[stored.storage]) for name, stored in tensors.items()}


def _foreign(archive: Archive) -> Iterator[str]:
    """A note on what else the file holds."""
    names = [name for name in archive.names if not name.startswith(PLAIN)]
    if names:
        yield f"objects of other code are left as they are, and none was made: {first_few(names)}"


def _require_honest(name: str, stored: Stored, archive: Archive) -> None:
    if not is_text(name):
        raise InputError(
            "its name is not text", file=archive.path, field=name, hint="rename the tensor"
        )
    if stored.outside:
        raise InputError(
            "reaches beyond the values that are stored",
            file=archive.path,
            field=name,
            hint="the file is damaged: copy it again",
        )
    if stored.nbytes > stored.storage.nbytes:
        raise InputError(
            f"claims {stored.nbytes:,} bytes, {stored.storage.nbytes:,} are stored",
            file=archive.path,
            field=name,
            hint="save a contiguous() copy of an expanded tensor",
        )
    archive.place_of(stored.storage)
