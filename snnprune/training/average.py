"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.training.runs.state import read_count, read_number, require_alike, require_names


class BestWeights:
    """The weights after the epoch of the highest validation accuracy, the first of equals."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.accuracy: float | None = None
        self.tensors: Mapping[str, Tensor] = {}

    def keep_if_better(self, accuracy: float | None, epoch: int, module: nn.Module) -> None:
        """Copy the weights to the host if they are better; None is no accuracy."""
        if accuracy is None or (self.accuracy is not None and accuracy <= self.accuracy):
            return
        self.epoch, self.accuracy = epoch, accuracy
        self.tensors = copy_to_cpu(module)

    def position(self) -> dict[str, Any]:
        """What a state says of it beside the tensors."""
        return {"epoch": self.epoch, "accuracy": self.accuracy}

    def restore(
        self,
        position: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        module: nn.Module,
        epochs: int,
    ) -> None:
        """Take back what `position` gave after so many epochs, and the tensors.

        Raises:
            LookupError, ValueError: they cannot be so, or the tensors are not those of `module`.
        """
        require_names(position, ("epoch", "accuracy"))
        if position["epoch"] is None and position["accuracy"] is None:
            require_alike(tensors, {})
            return
        self.epoch = read_count(position, "epoch", most=epochs - 1)
        self.accuracy = read_number(position, "accuracy")
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy cannot be {self.accuracy}")
        require_alike(tensors, module.state_dict())
        self.tensors = tensors


def copy_to_cpu(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors as they are now, by key, on the CPU."""
    tensors = module.state_dict().items()
    return {key: tensor.detach().to("cpu", copy=True) for key, tensor in tensors}


class WeightAverage:
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
    def use_averages(self) -> Iterator[None]:
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
