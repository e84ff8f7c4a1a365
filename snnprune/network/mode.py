"""Eval mode for a while, put back as it was."""

import contextlib
from collections.abc import Iterator

from torch import nn

from snnprune.network.libraries import plainly
from snnprune.network.wrappers import eagerly


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards each part is in its own mode again.

    A BatchNorm that somebody froze inside a training network stays frozen. Compiled parts and
    kernels of neuron libraries do not run: nothing can be seen in them, or they are not here.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with eagerly(), plainly(module):
            yield
    finally:
        for child, training in modes:
            child.training = training
