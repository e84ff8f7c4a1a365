"""Where what is not finite came from, once a loss is NaN or infinite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.batches import tensors
from snnprune.checkpoint import is_finite


def first_spoilt(module: nn.Module, run: Callable[[], object], x: Any) -> str | None:
    """What is not finite first: the batch `x`, a weight, or the output of a layer in `run`.

    None where all of them are, and the loss alone overflowed.
    """
    if not all(map(_finite, tensors(x))):
        return "the batch itself is not finite"
    for key, parameter in module.named_parameters():
        if not _finite(parameter):
            return f"{key} is not finite"
    with _watching(module) as found, torch.no_grad(), contextlib.suppress(Exception):
        run()  # that a loss is not finite is told whatever happens here
    return f"the output of {found[0]} is not finite" if found else None


@contextlib.contextmanager
def _watching(module: nn.Module) -> Iterator[list[str]]:
    """The names of layers whose output was not finite in the block, in the order of their calls."""
    found: list[str] = []
    with contextlib.ExitStack() as stack, _evaluating(module):
        for name, layer in module.named_modules():
            if not list(layer.children()):
                handle = layer.register_forward_hook(_noting(name or "the network", found))
                stack.callback(handle.remove)
        yield found


def _noting(name: str, found: list[str]) -> Callable[..., None]:
    def look(_: nn.Module, __: object, output: object) -> None:
        if not all(map(_finite, tensors(output))):
            found.append(name)

    return look


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In the block nothing is drawn, and no statistic of a batch is taken."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _finite(tensor: Tensor) -> bool:
    return bool(is_finite(tensor.detach()).all())
