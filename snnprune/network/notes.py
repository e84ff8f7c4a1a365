"""The notes that tensors carry through one pass."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.network.layout import Layout
from snnprune.network.origins import MOVES, VIEWS, Origin

NOTE = "_snnprune_origin"
CHANNELS = "_snnprune_channels"
POOLING = ("pool", "interpolate", "pad", "mean", "dropout")


class Notes:
    """Where each tensor of a pass came from; what an earlier pass noted counts no more."""

    def __init__(self, module: nn.Module) -> None:
        named = module.named_parameters(remove_duplicate=True)
        self.keys = {id(p): key for key, p in named}
        self.parameters: dict[int, Origin] = {}
        self.buffers = {id(b): key for key, b in module.named_buffers()}
        # a neuron may let go of one, and its id be given again
        self.held = [*module.buffers(), *module.parameters()]
        self.start()

    def start(self) -> None:
        """Begin a pass."""
        self.now = object()
        self.on_buffers: dict[int, Origin] = {}
        self.tensors: dict[Origin, weakref.ref[Tensor]] = {}

    def of(self, leaf: object) -> Origin | None:
        """Where a tensor came from, as far as it is known."""
        if not isinstance(leaf, Tensor):
            return None
        if (noted := self.on_buffers.get(id(leaf))) is not None:
            return noted
        key = self.buffers.get(id(leaf), "")
        if key.endswith("running_var"):
            return Origin(name=key, variances=frozenset({key}))
        if (parameter := self.parameter(leaf)) is not None:
            return parameter
        when, origin = getattr(leaf, NOTE, (None, None))
        return origin if when is self.now else None

    def parameter(self, leaf: object) -> Origin | None:
        """The origin of a parameter of the network."""
        if not isinstance(leaf, Tensor) or (key := self.keys.get(id(leaf))) is None:
            return None
        if id(leaf) not in self.parameters:  # a lazy one has its shape by now
            self.parameters[id(leaf)] = Origin(
                name=key, parameter=key, layout=Layout.of(leaf.shape)
            )
        return self.parameters[id(leaf)]

    def among(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        found = (self.of(leaf) for leaf in tree_leaves(tree))
        return tuple(origin for origin in found if origin is not None)

    def put(self, leaf: object, origin: Origin) -> None:
        """Note where a tensor came from."""
        if not isinstance(leaf, Tensor) or id(leaf) in self.keys:
            return
        self.tensors[origin] = weakref.ref(leaf)
        if id(leaf) in self.buffers:  # outlives the pass: nothing is to be left on it
            self.on_buffers[id(leaf)] = origin
        else:
            setattr(leaf, NOTE, (self.now, origin))

    def named(self, constant: Any) -> str:
        """A number, or the key of a parameter or buffer, to know an operation again by."""
        if not isinstance(constant, Tensor):
            return repr(constant)
        return self.keys.get(id(constant)) or self.buffers.get(id(constant), "")


class Channels:
    """Which channel of its layer each value of a current is of, whatever its shape becomes."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def begin(self, current: Tensor, axis: int) -> None:
        """Number the channels of what a layer gives."""
        if -axis > current.dim():
            return
        numbers = torch.arange(current.shape[axis], dtype=torch.int32, device=current.device)
        shape = [1] * current.dim()
        shape[axis] = -1
        self._put(current, numbers.view(shape).expand(current.shape))

    def follow(self, function: Any, args: Any, kwargs: Any, result: Any, name: str) -> None:
        """Number what an operation makes of what is numbered."""
        known = [leaf for leaf in tree_leaves((args, kwargs)) if self.of(leaf) is not None]
        if not known or (name in VIEWS | MOVES and len(known) > 1 and name != "__setitem__"):
            return
        with torch._C.DisableTorchFunction():
            try:
                self._follow(function, args, kwargs, result, known, name)
            except (RuntimeError, TypeError, ValueError, IndexError):
                return  # then nobody can say

    def _follow(
        self, function: Any, args: Any, kwargs: Any, result: Any, known: list[Tensor], name: str
    ) -> None:
        moves = name in VIEWS | MOVES and name != "__setitem__"
        if not moves:
            same = [one for one in known if isinstance(result, Tensor) and one.shape == result.shape]
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
        when, numbers = getattr(leaf, CHANNELS, (None, None))
        return numbers if when is self.notes.now else None

    def axis(self, leaf: object) -> int | None:
        """The dimension along which a tensor's channels lie, from the end; None if it is not known."""
        numbers = self.of(leaf)
        if numbers is None:
            return None
        with torch._C.DisableTorchFunction():
            for axis in range(-numbers.dim(), 0):
                first = numbers.movedim(axis, 0).flatten(1)[:, :1]
                alike = (numbers.movedim(axis, 0).flatten(1) == first).all()
                if bool(alike) and len(first) > 1 and _counts(first.flatten()):
                    return axis
        return None

    def _numbers(self, leaf: Any) -> Any:
        numbers = self.of(leaf)
        return leaf if numbers is None else numbers.float()

    def _put(self, leaf: Any, numbers: Tensor | None) -> None:
        if isinstance(leaf, Tensor) and id(leaf) not in self.notes.buffers:
            setattr(leaf, CHANNELS, (self.notes.now, numbers))


def _counts(numbers: Tensor) -> bool:
    return bool((numbers == torch.arange(len(numbers), device=numbers.device)).all())


