"""Batches as people have them, fed to a module."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.batches import Pair, copied, paired, require_labels, tensors
from snnprune.errors import InputError
from snnprune.network.readout import Reading
from snnprune.network.running import scores_in

Batch = Any
"""x, or x and its labels, as a DataLoader gives them; or whatever a way to run it takes."""


def fed(batches: Iterable[Batch], module: nn.Module) -> Iterator[Pair]:
    """Each batch as (x, y), y None without labels, on the device of `module`.

    x is a copy: the data stay as they are whatever the module does to it.

    Raises:
        InputError: there is no tensor in a batch, or a value that is NaN or infinite; or its labels
            are not as many as its samples, which they were in the first batch.
    """
    device, fitting = device_of(module), False
    for number, batch in enumerate(batches, start=1):
        pair = batch if isinstance(batch, Pair) else paired(batch)
        if pair is None:
            raise InputError(
                f"a batch is a {type(batch).__name__}",
                field="--data",
                hint="give tensors x or pairs (x, y), such as a DataLoader does",
            )
        if not all(map(_is_finite, tensors(pair.x))):
            raise InputError(
                f"batch {number} has NaN or infinity in it",
                field="--data",
                hint="no spike comes of NaN, so that every number would look right",
            )
        if pair.y is not None and isinstance(pair.x, Tensor):
            if fitting:
                require_labels(pair.x, pair.y)
            # else time and samples may lie in one dimension
            fitting = fitting or (number == 1 and len(pair.y) in pair.x.shape[:2])
        yield Pair(copied(pair.x, device), None if pair.y is None else pair.y.to(device))


def require_as_many(output: Any, x: Any, y: Tensor | None, reading: str | Reading) -> None:
    """Refuse labels of a batch that are neither as many as its samples nor as its outputs.

    Raises:
        InputError: they are such.
    """
    scores = None if y is None else scores_in(output, reading)
    if y is not None and scores is not None and len(y) not in scores.shape[:-1]:
        require_labels(x, y)


@contextlib.contextmanager
def telling_of_labels(x: Any, y: Tensor | None) -> Iterator[None]:
    """Reading an output fails in the block where it is not of as many samples as there are labels.

    Raises:
        InputError: it did, and x is not of so many samples either: the labels are at fault.
    """
    try:
        yield
    except InputError as error:
        if error.field == "--readout" and y is not None:
            require_labels(x, y)
        raise


def _is_finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(x.isfinite().all())


def device_of(module: nn.Module) -> torch.device:
    """Where its parameters are."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
