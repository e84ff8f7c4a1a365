"""The weights of a network in training: which are held at 0, their average, the best so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim

from snnprune.masks import Masks
from snnprune.training.runs.state import read_count, read_number, require_alike, require_names


class MaskKeeper:
    """Two kinds of masks, by weight key, True = kept; they alone say what is alive.

    `held` masks keep pruned weights at 0: their gradient is 0, and after every step their value
    and all that the optimizer remembers of them are 0 again. `passing` masks act in the forward
    pass alone, so that gradient and weight decay reach every weight and a pruned one can return
    (SF-IMP-2; the straight-through gradient of Guo et al. 2016, arXiv 1608.04493).
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.held: dict[str, Tensor] = {}
        self.passing: dict[str, Tensor] = {}

    def set(self, held: Masks, passing: Masks | None = None) -> None:
        """Take these masks instead; weights that `held` prunes become 0."""
        self.held = {key: self._move_beside(key, mask) for key, mask in held.items()}
        self.passing = {key: self._move_beside(key, mask) for key, mask in (passing or {}).items()}
        with torch.no_grad():
            for key, mask in self.held.items():
                self._weight(key).masked_fill_(~mask, 0.0)

    def copy_masks(self) -> dict[str, Tensor]:
        """All of them, on the CPU."""
        return {key: mask.cpu() for key, mask in {**self.held, **self.passing}.items()}

    @contextlib.contextmanager
    def apply_passing(self) -> Iterator[None]:
        """In the block the `passing` masks act; after it the weights are as they were.

        What `backward` finds in the block is the straight-through gradient: that of the masked
        weight, for all of them.
        """
        whole = {key: self._weight(key).detach().clone() for key in self.passing}
        with torch.no_grad():
            for key, mask in self.passing.items():
                self._weight(key).masked_fill_(~mask, 0.0)
        try:
            yield
        finally:
            with torch.no_grad():
                for key, weight in whole.items():
                    self._weight(key).copy_(weight)

    def clear_gradients(self) -> None:
        """Set the gradients of held weights to 0, before anything measures them."""
        for key, mask in self.held.items():
            gradient = self._weight(key).grad
            if gradient is not None:
                gradient.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def enforce(self, optimizer: optim.Optimizer) -> None:
        """Set held weights to 0, and what `optimizer` remembers of them."""
        for key, mask in self.held.items():
            weight = self._weight(key)
            weight.masked_fill_(~mask, 0.0)
            for remembered in optimizer.state.get(weight, {}).values():
                if isinstance(remembered, Tensor) and remembered.shape == weight.shape:
                    remembered.masked_fill_(~mask, 0.0)

    def clear(self, tensors: Mapping[str, Tensor]) -> None:
        """Set held weights to 0 in `tensors`, those of the same keys."""
        for key in self.held.keys() & tensors.keys():
            tensors[key].masked_fill_(~self.held[key], 0.0)

    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state."""
        return {"held": self.held, "passing": self.passing}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what `groups` gave; the weights are already what they were.

        Raises:
            ValueError: a mask is none.
        """
        held, passing = groups.get("held", {}), groups.get("passing", {})
        for key, mask in (*held.items(), *passing.items()):
            if mask.dtype != torch.bool:
                raise ValueError(f"the mask of {key} is {mask.dtype}")
        self.set(held, passing)

    def _weight(self, key: str) -> nn.Parameter:
        return self.module.get_parameter(key)

    def _move_beside(self, key: str, mask: Tensor) -> Tensor:
        weight = self._weight(key)
        if mask.shape != weight.shape:
            raise ValueError(f"the mask of {key} has shape {list(mask.shape)}")
        return mask.to(weight.device, torch.bool)


class WeightAverage:
    """An exponential moving average of the weights.

    w_avg <- decay w_avg + (1 - decay) w after every step, over all parameters.

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
