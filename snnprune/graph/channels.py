"""Where the channels of a layer are in what comes of its current."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.graph.calls import LayerCall
from snnprune.graph.layout import Layout
from snnprune.graph.network import NOWHERE
from snnprune.graph.origins import MOVES, VIEWS, Origin

NOTE = "_snnprune_origin"


class OriginNotes:
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

    def is_buffer(self, tensor: Tensor) -> bool:
        """Whether it is a buffer of the network, as a fixed filter is."""
        return id(tensor) in self.buffers

    def list_origins(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        found = ((leaf, self.of(leaf)) for leaf in tree_leaves(tree))
        return tuple(
            origin
            for leaf, origin in found
            if origin is not None and not (origin.data and leaf.numel() == 0)  # nothing is in it
        )

    def put(self, leaf: object, origin: Origin) -> None:
        """Note where a tensor came from."""
        if not isinstance(leaf, Tensor) or id(leaf) in self.keys:
            return
        self.tensors[origin] = weakref.ref(leaf)
        if id(leaf) in self.buffers:  # outlives the pass: nothing is to be left on it
            self.on_buffers[id(leaf)] = origin
        else:
            setattr(leaf, NOTE, (self.now, origin))

    def forget(self, leaf: object) -> None:
        """What was in a tensor is not in it any more."""
        self.on_buffers.pop(id(leaf), None)
        if isinstance(leaf, Tensor) and hasattr(leaf, NOTE):
            delattr(leaf, NOTE)

    def name_constant(self, constant: Any) -> str:
        """A number, or the key of a parameter or buffer, to know an operation again by."""
        if not isinstance(constant, Tensor):
            return repr(constant)
        return self.keys.get(id(constant)) or self.buffers.get(id(constant), "")


NUMBERS = "_snnprune_channels"
# These are never run on the tensors of the network, which they would change.
WRITES = frozenset({"__setitem__", "__set__", "copy"})
SOME = frozenset({"index", "index_select", "flip", "roll"})
POOLING = ("pool", "interpolate", "pad", "mean", "dropout")


class ChannelNumbers:
    """Which channel of its layer each value of a current is of, whatever its shape becomes."""

    def __init__(self, notes: OriginNotes) -> None:
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
        numbered = tree_map(self._get_numbers, (args, kwargs))
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
                if bool(alike) and len(first) > 1 and _is_in_order(first.flatten()):
                    return axis
            return NOWHERE if bool(numbers.any()) else None

    def _get_numbers(self, leaf: Any) -> Any:
        numbers = self.of(leaf)
        return leaf if numbers is None else numbers.float()

    def _put(self, leaf: Any, numbers: Tensor | None) -> None:
        if isinstance(leaf, Tensor) and id(leaf) not in self.notes.buffers:
            setattr(leaf, NUMBERS, (self.notes.now, numbers))


def _is_in_order(numbers: Tensor) -> bool:
    return bool((numbers == torch.arange(len(numbers), device=numbers.device)).all())
