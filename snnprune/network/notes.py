"""The notes that tensors carry through one pass."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from snnprune.network.layout import Layout
from snnprune.network.origins import Origin

NOTE = "_snnprune_origin"


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

    def is_buffer(self, tensor: Tensor) -> bool:
        """Whether it is a buffer of the network, as a fixed filter is."""
        return id(tensor) in self.buffers

    def among(self, tree: Any) -> tuple[Origin, ...]:
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

    def named(self, constant: Any) -> str:
        """A number, or the key of a parameter or buffer, to know an operation again by."""
        if not isinstance(constant, Tensor):
            return repr(constant)
        return self.keys.get(id(constant)) or self.buffers.get(id(constant), "")
