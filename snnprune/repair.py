"""Repairs: what is done to the kept weights' surroundings after pruning, without training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.network import Network

REPAIRS = {
    "bn": "BatchNorm statistics taken again on the calibration data",
    "none": "nothing",
}


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """The normalisations that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def recalibrate_batchnorm(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    *,
    run: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x),
) -> None:
    """Replace the running mean and variance of every BatchNorm by their average over `batches`.

    No weight changes, nothing else is in training mode, and no label is read.
    """
    with _averaging(batchnorms(network.module)):
        for x, _ in batches:
            network.reset()
            run(network.module, x)


@contextlib.contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let `norms` take the plain average of the batches' statistics."""
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None
        yield
    finally:
        for norm, training, momentum in before:
            norm.train(training)
            norm.momentum = momentum
