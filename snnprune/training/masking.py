"""Masks on a network that is being trained: they alone say what is alive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn, optim

from snnprune.masks import Masks


class MaskKeeper:
    """Two kinds of masks, by weight key, True = kept.

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
