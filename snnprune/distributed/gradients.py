"""Gradients of the whole batch, of which each rank holds a part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snnprune.distributed.ranks import Ranks
from snnprune.runtime import seed_draws

Compute = Callable[..., Tensor]
"""From what a network is fed to the tensor that the loss is made of, from rest."""


class ReplicatedNetwork:
    """Runs a network of which every rank has a copy.

    Where each rank's loss counts by its share of the whole batch (`Part.share`), `backward` gives
    all of them the gradients that one process would have. The module itself stays as it is, under
    its own keys. Alone, nothing is wrapped.
    """

    def __init__(self, module: nn.Module, compute: Compute, ranks: Ranks, *example: Any) -> None:
        """`compute` runs `module`; `example` is what it takes, to see which parameters it uses.

        All ranks get the parameters and buffers of the first.
        """
        self.wrapped: DistributedDataParallel | None = None
        self.running, self.size = _RunModule(module, compute), ranks.size
        if ranks.size == 1:
            return
        for mine, first in zip(module.buffers(), ranks.share(list(module.buffers())), strict=True):
            mine.copy_(first)
        with _keep_buffers(module), seed_draws("example", device=_find_device(module)):
            unused = ranks.any(_leaves_some_unused(self.running, example))
            self.wrapped = DistributedDataParallel(self.running, find_unused_parameters=unused)
            # it lays its buckets anew after one pass; a run that is taken up again must sum alike
            _find_used_parameters(self.wrapped, example)

    def __call__(self, *fed: Any) -> Tensor:
        """The output for this rank's part of the batch."""
        return (self.wrapped or self.running)(*fed)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the sum of all ranks' losses."""
        (loss if self.size == 1 else loss * self.size).backward()  # DDP takes the mean over ranks

    def apart(self) -> AbstractContextManager[None]:
        """Passes in the block add to this rank's gradients; the next one outside sums them all."""
        return self.wrapped.no_sync() if self.wrapped else contextlib.nullcontext()


class _RunModule(nn.Module):
    """`compute` as a module; it may call the network's parts, or the network many times.

    The parameters are all that is to be seen of the network: buffers are the same on all ranks.
    """

    def __init__(self, module: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.trained = nn.ParameterList(module.parameters())
        self.compute = compute

    def forward(self, *fed: Any) -> Tensor:
        """The output for `fed`."""
        return self.compute(*fed)


def _leaves_some_unused(running: _RunModule, example: tuple[Any, ...]) -> bool:
    """Whether a parameter gets no gradient."""
    used = _find_used_parameters(running, example)
    return any(p.requires_grad and p not in used for p in running.parameters())


def _find_used_parameters(called: nn.Module, example: tuple[Any, ...]) -> set[nn.Parameter]:
    """The parameters that get a gradient in one pass; afterwards none has one."""
    called(*example).sum().backward()
    used = {parameter for parameter in called.parameters() if parameter.grad is not None}
    for parameter in used:
        parameter.grad = None
    return used


@contextlib.contextmanager
def _keep_buffers(module: nn.Module) -> Iterator[None]:
    """After the block they are as they were."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    yield
    for buffer, before in kept:
        buffer.copy_(before)


def _find_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
