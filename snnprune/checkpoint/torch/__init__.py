"""Torch files: the state_dict in one, and whether its tensors are what they claim.

`formats` says where a file has its pickle and its storages; `machine` and `instructions` read the
pickle, calling nothing, so that it comes to `stand_ins`; `state_dict` finds the tensors among them.
`rewrite` writes the file again, with `pickle_edit` where its pickle has to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.torch.formats import open_legacy, open_tar, open_zip
from snnprune.checkpoint.torch.stand_ins import (
    Storage,
    StoredTensor,
    TorchFile,
    damaged_error,
    read_storage_bytes,
    swap_byte_order,
)
from snnprune.checkpoint.torch.state_dict import StoredStateDict, find_state_dict, list_notes
from snnprune.errors import InputError, Note, format_names, is_text
from snnprune.files.reading import open_for_reading


def open_torch_file(file: BinaryIO, path: Path) -> TorchFile:
    """What torch.save was given, as stand-ins, and where the storages are.

    Raises:
        InputError: the file is damaged, or of another kind.
    """
    file.seek(0)
    head = file.read(512)
    if head[:2] == b"PK":
        return open_zip(file, path)
    if head[257:262] == b"ustar":
        return open_tar(file, path)
    return open_legacy(file, path)


PLAIN = (
    *("torch.", "collections.", "argparse.Namespace", "numpy.", "_codecs.encode", "datetime."),
    *("pathlib.", "copyreg._reconstructor", "builtins.object"),
    *("builtins.set", "builtins.frozenset", "builtins.complex", "builtins.slice"),
    *("lightning.", "lightning_fabric.", "pytorch_lightning."),
)
"""Beginnings of names of what trainers' files hold."""


def read(path: Path, *, entry: str | None = None, values: bool = True) -> Contents:
    """The state_dict in the file, on the CPU; of several the one under `entry`.

    Without `values` its tensors are on `meta`.

    Raises:
        InputError: the file is damaged, holds code or no state_dict, or lies about a tensor.
    """
    with open_for_reading(path) as file:
        source = open_torch_file(file, path)
        found = find_state_dict(source.root, path, entry)
        plain = select_plain_tensors(found, path)
        tensors = _read_values(file, source, plain, path) if values else _make_outlines(plain)
    return Contents(
        tensors=tensors,
        metadata={},
        notes=(*list_notes(found, source.root), *_iter_foreign_notes(source)),
        entry=found.entry,
        odd=found.select_odd(),
    )


def read_outline(path: Path, *, entry: str | None = None) -> Contents:
    """The same with tensors on `meta`: their values are not read.

    Raises:
        InputError: as `read`.
    """
    return read(path, entry=entry, values=False)


def select_plain_tensors(found: StoredStateDict, path: Path) -> dict[str, StoredTensor]:
    """The tensors that are not left alone.

    Raises:
        InputError: there are none, or one is not what it claims.
    """
    odd = found.select_odd()
    for name, tensor in found.select_tensors().items():
        if not is_text(name):
            raise InputError(
                "its name is not text", file=path, field=name, hint="rename the tensor"
            )
        if name not in odd:
            _require_honest(name, tensor, path)
    if odd and len(odd) == len(found.select_tensors()):
        name, kind = next(iter(odd.items()))
        raise InputError(f"is no dense tensor, but {kind}; there is none", file=path, field=name)
    return {name: tensor for name, tensor in found.select_tensors().items() if name not in odd}


def _iter_foreign_notes(source: TorchFile) -> Iterator[str]:
    """A note on what else the file holds."""
    names = [name for name in source.tensors.names if not name.startswith(PLAIN)]
    if names:
        listed = format_names(names)
        yield Note(f"objects of other code are left as they are, and none was made: {listed}")


def view_of(data: Tensor, tensor: StoredTensor) -> Tensor:
    """A tensor over the bytes of its storage, (bytes,) uint8 in this machine's order."""
    return torch.empty(0, dtype=tensor.dtype).set_(
        data.untyped_storage(), tensor.offset, tensor.shape, tensor.stride
    )


def _require_honest(name: str, tensor: StoredTensor, path: Path) -> None:
    if tensor.doubt is not None:
        what, hint = tensor.doubt
        raise InputError(what, file=path, field=name, hint=hint)
    if tensor.storage is not None and tensor.storage.doubt is not None:
        raise damaged_error(f"the storage of {name} {tensor.storage.doubt}", path)


def _read_values(
    file: BinaryIO, source: TorchFile, plain: dict[str, StoredTensor], path: Path
) -> dict[str, Tensor]:
    data: dict[Storage, Tensor] = {}
    tensors = {}
    for name, tensor in plain.items():
        storage = tensor.storage
        assert storage is not None
        if storage not in data:
            data[storage] = swap_byte_order(
                read_storage_bytes(file, storage, path), storage, swapped=source.swapped
            )
        tensors[name] = view_of(data[storage], tensor)
    return tensors


def _make_outlines(plain: dict[str, StoredTensor]) -> dict[str, Tensor]:
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in plain.items()
    }
