"""Other tensors in a module for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


@contextlib.contextmanager
def holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """In the block `module` has `tensors`, by state-dict key, in place of its own.

    Parameters and buffers stay the objects that they are, where they are; nothing is copied that
    lies there already.
    """
    held = module.state_dict(keep_vars=True)
    own = {key: tensor for key, tensor in held.items() if key in tensors}
    before = {key: tensor.data for key, tensor in own.items()}
    try:
        for key, tensor in own.items():
            tensor.data = tensors[key].to(tensor.device)
        yield
    finally:
        for key, tensor in own.items():
            tensor.data = before[key]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers of `module`, by state-dict key."""
    return {
        key: tensor.detach().clone()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }
