"""Where the channels of a layer are in what comes of its current."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.network.calls import LayerCall
from snnprune.network.links import NOWHERE
from snnprune.network.notes import Notes
from snnprune.network.origins import MOVES, VIEWS

NUMBERS = "_snnprune_channels"
# These are never run on the tensors of the network, which they would change.
WRITES = frozenset({"__setitem__", "__set__", "copy"})
SOME = frozenset({"index", "index_select", "flip", "roll"})
POOLING = ("pool", "interpolate", "pad", "mean", "dropout")


class Channels:
    """Which channel of its layer each value of a current is of, whatever its shape becomes."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def begin(self, current: Tensor, call: LayerCall) -> None:
        """Number the channels of what a layer gives."""
        self._put(current, call.numbers(current))

    def follow(self, function: Any, args: Any, kwargs: Any, result: Any, name: str) -> None:
        """Number what an operation makes of what is numbered."""
        known = [leaf for leaf in tree_leaves((args, kwargs)) if self.of(leaf) is not None]
        if not known or (name in VIEWS | MOVES and len(known) > 1 and name not in WRITES):
            return
        with torch._C.DisableTorchFunction():
            try:
                if name in WRITES:
                    self._write(args, result, name)
                else:
                    self._follow(function, args, kwargs, result, known, name)
            except (RuntimeError, TypeError, ValueError, IndexError):
                return  # then nobody can say

    def _follow(
        self, function: Any, args: Any, kwargs: Any, result: Any, known: list[Tensor], name: str
    ) -> None:
        if name not in VIEWS | MOVES | SOME:
            same = [
                one for one in known if isinstance(result, Tensor) and one.shape == result.shape
            ]
            if same:
                self._put(result, self.of(same[0]))
                return
            if not any(word in name for word in POOLING):
                return
        numbered = tree_map(self._numbers, (args, kwargs))
        made = function(*numbered[0], **numbered[1])
        for leaf, numbers in zip(tree_leaves(result), tree_leaves(made), strict=True):
            if isinstance(leaf, Tensor) and leaf.shape == numbers.shape:
                self._put(leaf, numbers)

    def of(self, leaf: object) -> Tensor | None:
        """The numbers of a tensor, in its shape."""
        when, numbers = getattr(leaf, NUMBERS, (None, None))
        return numbers if when is self.notes.now else None

    def _write(self, args: Any, result: Any, name: str) -> None:
        """Number what is written into a tensor; the rest of it stays as it is."""
        numbers, new = self.of(args[0]), self.of(args[-1])
        if name != "__setitem__":
            self._put(result, None if new is None else new.expand(result.shape))
        elif new is not None:
            blank = torch.full(result.shape, -1, dtype=torch.int32, device=result.device)
            numbers = blank if numbers is None else numbers.clone()
            numbers[args[1]] = new
            self._put(result, numbers)

    def axis(self, leaf: object) -> int | None:
        """Along which dimension a tensor's channels lie, from the end; None if it is not known.

        NOWHERE where they are known and lie along no single one.
        """
        numbers = self.of(leaf)
        if numbers is None:
            return None
        with torch._C.DisableTorchFunction():
            for axis in range(-numbers.dim(), 0):
                first = numbers.movedim(axis, 0).flatten(1)[:, :1]
                alike = (numbers.movedim(axis, 0).flatten(1) == first).all()
                if bool(alike) and len(first) > 1 and _counts(first.flatten()):
                    return axis
            return NOWHERE if bool(numbers.any()) else None

    def _numbers(self, leaf: Any) -> Any:
        numbers = self.of(leaf)
        return leaf if numbers is None else numbers.float()

    def _put(self, leaf: Any, numbers: Tensor | None) -> None:
        if isinstance(leaf, Tensor) and id(leaf) not in self.notes.buffers:
            setattr(leaf, NUMBERS, (self.notes.now, numbers))


def _counts(numbers: Tensor) -> bool:
    return bool((numbers == torch.arange(len(numbers), device=numbers.device)).all())
