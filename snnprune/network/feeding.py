"""Batches as people have them, fed to a module."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from snnprune.errors import InputError

Batch = Tensor | Sequence[Tensor | None]
"""x, or x and its labels, as a DataLoader gives them."""


def fed(batches: Iterable[Batch], module: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each batch as (x, y), y None without labels, on the device of `module`.

    x is a copy: the data stay as they are whatever the module does to it.

    Raises:
        InputError: a batch is neither a tensor nor two.
    """
    device = device_of(module)
    for batch in batches:
        x, y = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
        if not isinstance(x, Tensor) or not isinstance(y, Tensor | None):
            raise InputError(
                f"a batch is a {type(batch).__name__}",
                field="--data",
                hint="give tensors x or pairs (x, y), such as a DataLoader does",
            )
        # a copy, since a network may work in place on what it is given
        yield x.to(device, copy=True), None if y is None else y.to(device)


def device_of(module: nn.Module) -> torch.device:
    """Where its parameters are."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def batch_length(x: Tensor, y: Tensor | None) -> int:
    """The number of samples, by the labels where there are some: events have time first."""
    return len(x if y is None else y)
