"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from snnprune.runs.values import require_alike


class Average:
    """w_avg <- decay w_avg + (1 - decay) w after every step, over all parameters.

    Buffers, as BatchNorm's running statistics, are taken as they are.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self.parameters = dict(module.named_parameters())
        self.decay = decay
        self.tensors = {k: p.detach().clone() for k, p in self.parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step in."""
        if self.decay is not None:
            new = [self.parameters[key].detach() for key in self.tensors]
            torch._foreach_lerp_(list(self.tensors.values()), new, 1 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """In the block the parameters are their averages; without a decay, themselves."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take averages back, by the names of the parameters.

        Raises:
            ValueError: one is missing, or of another shape.
        """
        require_alike(tensors, self.tensors)
        for key, average in self.tensors.items():
            average.copy_(tensors[key])

    @torch.no_grad()
    def _swap(self) -> None:
        for key, average in self.tensors.items():
            held = average.clone()
            average.copy_(self.parameters[key])
            self.parameters[key].copy_(held)
