"""Eval mode for a while, put back as it was."""

import contextlib
from collections.abc import Iterator

from torch import nn

from snnprune.network.wrappers import eagerly


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards each part is in its own mode again.

    A BatchNorm that somebody froze inside a training network stays frozen.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with eagerly():
            yield
    finally:
        for child, training in modes:
            child.training = training
