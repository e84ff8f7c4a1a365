"""Which calls of layers have a part in which: a pass in which every operation is followed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from snnprune.graph.calls import LayerCall, NormCall
from snnprune.graph.hooks import Observer, Watched, observe
from snnprune.graph.network import Network

ASKING = frozenset(
    {"item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__"}
    | {"__contains__", "__dlpack__", "data_ptr", "untyped_storage", "equal", "allclose"}
    | {"is_nonzero"}
)
"""What makes numbers of tensors that nobody can follow."""


@dataclass(frozen=True, kw_only=True)
class CallGraph:
    """The calls of layers in a pass, in order, by their place in it."""

    keys: tuple[str, ...]
    """The layer of each."""
    reads: tuple[frozenset[int], ...]
    """The calls whose results enter each, not through another call."""
    sizes: tuple[int, ...]
    """Bytes of each result."""

    @classmethod
    def of_passes_from_the_input(cls, keys: tuple[str, ...]) -> CallGraph:
        """As if each call needed all before it, and no result could be kept."""
        reads = tuple(frozenset({place - 1} if place else ()) for place in range(len(keys)))
        return cls(keys=keys, reads=reads, sizes=(sys.maxsize,) * len(keys))

    def list_calls(self, keys: Collection[str]) -> list[int]:
        """The calls of some layers."""
        return [place for place, key in enumerate(self.keys) if key in keys]

    def find_settled(self, settled: Collection[str]) -> list[bool]:
        """Whether each call, and all that have a part in its input, are of these layers."""
        found: list[bool] = []
        for key, read in zip(self.keys, self.reads, strict=True):
            found.append(key in settled and all(found[place] for place in read))
        return found


class CallTracing(TorchFunctionMode):
    """Sees in one pass what enters which call, by its observers and by what is run in its block.

    Each tensor has a note of the calls that have a part in it, past no other call.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.notes = WeakIdKeyDictionary()
        self.keys: list[str] = []
        self.reads: list[frozenset[int]] = []
        self.sizes: list[int] = []
        self.numbers: list[int] = []
        """How many of them each result has."""
        self.norms: dict[str, frozenset[str]] = {}
        self.asked = self.mixed = False

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = str(getattr(function, "__name__", ""))
        if name == "__iter__":
            result = list(result)
        with torch._C.DisableTorchFunction():
            found = self.of((args, kwargs))
            self.mixed |= bool(found) and name in ASKING
            for leaf in tree_leaves(result):
                self._note(leaf, found)
            if found and args and writes(function, kwargs):
                self._note(args[0], found)
        return iter(result) if name == "__iter__" else result

    def observe(self, x: Any, on_spikes: Observer) -> Watched:
        """See `snnprune.graph.hooks.observe`; `x` is what will be fed."""
        with torch._C.DisableTorchFunction():
            module = self.network.module
            for leaf in tree_leaves([x, *map(vars, module.modules())]):
                self._note(leaf, frozenset())
        return observe(
            self.network,
            on_layer=self._on_layer,
            on_current=self._on_current,
            on_norm=self._on_norm,
            on_spikes=on_spikes,
            give=self._give,
        )

    def read(self) -> CallGraph | None:
        """What was seen; None where passes cannot be cut short.

        That is where something is drawn at random, where layers are inside neurons or made of other
        parameters as a whole, where one normalisation follows several layers, and where values are
        asked for or come from where nothing is seen.
        """
        cut = self.network.draws is None and not self.network.made and not self.mixed
        if not cut or len(self.sizes) != len(self.keys):
            return None
        return CallGraph(keys=tuple(self.keys), reads=tuple(self.reads), sizes=tuple(self.sizes))

    def of(self, tree: Any) -> frozenset[int]:
        """The calls that have a part in some tensor of it."""
        found = frozenset[int]()
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                note = self.notes.get(leaf)
                self.mixed |= note is None  # made where nothing is seen
                found |= note or frozenset()
                if leaf._base is not None:
                    found |= self.notes.get(leaf._base, frozenset())
        return found

    def _on_layer(self, key: str, call: LayerCall) -> None:
        self.keys.append(key)
        with torch._C.DisableTorchFunction():
            self.reads.append(self.of(call.input))

    def _give(self, _: str) -> None:
        self.asked = True

    def _on_current(self, key: str, result: Tensor) -> None:
        place = len(self.sizes)
        last = place == len(self.keys) - 1 and self.keys[place] == key
        self.mixed |= not (last and self.asked)  # it is inside a neuron, or adds something up
        self.asked = False
        self.sizes.append(result.nbytes)
        self.numbers.append(result.numel())
        self.notes[result] = frozenset({place})
        if result._base is not None:
            self.notes[result._base] = frozenset({place})

    def _on_norm(self, key: str, call: NormCall) -> None:
        with torch._C.DisableTorchFunction():
            places = self.of(call.input)
        before = frozenset(self.keys[place] for place in places)
        self.mixed |= self.norms.setdefault(key, before) != before

    def _note(self, leaf: object, found: frozenset[int]) -> None:
        if isinstance(leaf, Tensor):
            self.notes[leaf] = self.notes.get(leaf, frozenset()) | found
            if leaf._base is not None:
                self.notes[leaf._base] = self.notes.get(leaf._base, frozenset()) | found


IN_PLACE = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}
    | {"__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"}
)


def writes(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function may change its first argument, or what it is given as `out`."""
    name = str(getattr(function, "__name__", ""))
    if kwargs.get("out") is not None or kwargs.get("inplace"):
        return True
    ends_in_one = name.endswith("_") and not name.endswith("__")
    return ends_in_one or name in IN_PLACE or name in ("__setitem__", "__set__")
