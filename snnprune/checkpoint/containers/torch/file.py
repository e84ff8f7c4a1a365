"""The state_dict in a torch file, and whether its tensors are what they claim."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from snnprune.checkpoint.containers.contents import Contents
from snnprune.checkpoint.containers.torch.loading import load
from snnprune.checkpoint.containers.torch.state_dict import notes_on, state_dict_in
from snnprune.checkpoint.naming import is_text
from snnprune.errors import InputError


def read(path: Path, *, entry: str | None = None) -> Contents:
    """The state_dict in the file, on the CPU; of several the one under `entry`.

    Raises:
        InputError: the file is damaged, holds code or no state_dict, or lies about a tensor.
    """
    loaded, _ = load(path)
    found = state_dict_in(loaded, path, entry)
    for name, tensor in found.tensors.items():
        _require_honest(name, tensor, path)
    return Contents(
        tensors={name: tensor.detach() for name, tensor in found.tensors.items()},
        metadata={},
        notes=notes_on(found, loaded),
        entry=found.entry,
    )


def _require_honest(name: str, tensor: Tensor, path: Path) -> None:
    if not is_text(name):
        raise InputError("its name is not text", file=path, field=name, hint="rename the tensor")
    if not _is_plain(tensor):
        raise InputError(
            f"is not a plain dense tensor ({tensor.layout}, {tensor.dtype}, {tensor.device})",
            file=path,
            field=name,
            hint="save it dense and on the CPU",
        )
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:
        raise InputError(
            f"claims {tensor.nbytes:,} bytes, {stored:,} are stored",
            file=path,
            field=name,
            hint="save a contiguous() copy of an expanded tensor",
        )


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
    )
