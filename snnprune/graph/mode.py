"""Eval mode for a while, put back as it was."""

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from snnprune.graph.libraries import use_plain_operations


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


@contextlib.contextmanager
def run_eagerly() -> Iterator[None]:
    """Run compiled functions as they were written: nothing can be seen in compiled ones."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def use_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards each part is in its own mode again.

    A BatchNorm that somebody froze inside a training network stays frozen. Compiled parts and
    kernels of neuron libraries do not run: nothing can be seen in them, or they are not here.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with run_eagerly(), use_plain_operations(module):
            yield
    finally:
        for child, training in modes:
            child.training = training
