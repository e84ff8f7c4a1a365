"""Eval mode for a while, put back as it was."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

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


def batch_length(x: Tensor, y: Tensor | None) -> int:
    """The number of samples, by the labels where there are some: events have time first."""
    return len(x if y is None else y)
