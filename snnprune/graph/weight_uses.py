"""Weights in a forward pass: which parameter a call applies, and as what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from snnprune.graph.calls import LayerCall, WeightCandidate, drop_repeats, name_of
from snnprune.graph.layer_calls import find_addend, iter_candidates, iter_fused_weights
from snnprune.graph.layout import Layout, find_layout
from snnprune.graph.observers import TracePass
from snnprune.graph.origins import MOVES, Origin, make_origin
from snnprune.graph.parameters import (
    KEEPS_ORDER,
    AppliedWeight,
    ComposedWeight,
    WeightPieces,
    find_applied_weight,
)
from snnprune.graph.thresholds import find_function_here

NAMELESS = "a weight of the network's own"
"""Stands for one that is no parameter, where a traced network is watched."""
COPIES = frozenset({"contiguous", "clone"})
REPEATS = frozenset({"expand", "expand_as", "broadcast_to"})


class WeightReader:
    """Knows the calls that apply weights, and tells the observers of them."""

    def __init__(self, followed: TracePass, axis: Callable[[object], int | None]) -> None:
        """`axis` tells where a tensor has the channels of a layer before it, if that is known."""
        self.followed, self.axis = followed, axis
        self.notes, self.observers = followed.notes, followed.observers
        self.settled = followed.settled
        self.call: LayerCall | None = None
        """The last call of a layer."""

    def current(self, function: Any, args: Any, kwargs: Any) -> Origin | None:
        """The origin of what a layer gives, once the observers are told; None if it is none."""
        for one in iter_candidates(function, args, kwargs):
            origin, other = self.notes.of(one.raw), self.notes.of(one.other)
            if origin is None and self._is_nameless(one):
                self._read(one)
                return self._make_current(NAMELESS, other, None)
            if origin is None or not self._may_be_layer(one, origin, other):
                continue
            if key := self._tell(
                one, find_applied_weight(origin, one.once.shape, self.settled.functions)
            ):
                return self._make_current(key, other, find_addend(function, args, kwargs))
        self.tell_unseen(function, args, kwargs)
        return None

    def tell_inside_neuron(self, function: Any, args: Any, kwargs: Any, neuron: str) -> str | None:
        """Tell of a layer inside a neuron module, as recurrent ones have; its weight."""
        self.tell_unseen(function, args, kwargs)
        for one in iter_candidates(function, args, kwargs):
            origin = self.notes.parameter(one.raw)
            if origin is not None and origin.parameter is not None and not one.across:
                with self.followed.apart():
                    self.observers.on_layout(origin.parameter, one.layout)
                    self.observers.on_layer(origin.parameter, one.read(), neuron)
                return origin.parameter
        return None

    def tell_unseen(self, function: Any, args: Any, kwargs: Any) -> None:
        """Tell of weights that a fused call applies, as that of a whole LSTM cell."""
        known = [self.notes.of(one) for one in iter_fused_weights(function, args, kwargs)]
        keys = tuple(one.parameter for one in known if one is not None and one.parameter)
        if keys:
            self.observers.on_unseen(keys, name_of(function))

    def add_parameter_form(
        self, origin: Origin, function: Any, args: Any, kwargs: Any, result: Tensor
    ) -> Origin:
        """With how the parameter lies to `result`, where that is one in another form."""
        origin = replace(origin, written=find_function_here())
        (before, *others) = origin.parents
        if others or before.layout is None:
            return origin
        if origin.name in REPEATS and isinstance(args[0], Tensor):
            with self.followed.apart():
                return _undo_repeats(origin, before, result)
        if result.numel() != prod(before.layout.shape):
            return origin
        after: Layout | None
        if origin.name in KEEPS_ORDER:
            after = _make_reshape_layout(before.layout.shape, tuple(result.shape))
        elif origin.name in MOVES:
            after = self._moved(before.layout.shape, function, args, kwargs)
        else:
            return origin
        layout = before.layout.chain(after) if after is not None else None
        return replace(origin, parameter=before.parameter, layout=layout) if layout else origin

    def _may_be_layer(
        self, candidate: WeightCandidate, origin: Origin, other: Origin | None
    ) -> bool:
        """Whether a product is that of a layer; one of two matrices may make a weight as well."""
        if candidate.across and not self._has_features_first(candidate, origin, other):
            return False
        if candidate.is_layer or (other is not None and other.data):
            return True
        return other is None and origin.parameter in self.settled.layers

    def _is_nameless(self, candidate: WeightCandidate) -> bool:
        """Whether a weight may be a layer's that was made of its parameter before the pass."""
        made_before = bool(self.settled.layers) and not self.notes.is_buffer(candidate.raw)
        return candidate.is_layer and made_before

    def _has_features_first(
        self, candidate: WeightCandidate, origin: Origin, other: Origin | None
    ) -> bool:
        """Whether the first dimension of what a weight is applied to is no time and no samples."""
        if origin.parameter in self.settled.layers:
            return True
        known = self.axis(candidate.other)
        if known is not None:
            return known == -candidate.other.dim()
        return candidate.other.dim() == 2 and _is_turned(other)

    def _tell(
        self, one: WeightCandidate, found: AppliedWeight | WeightPieces | ComposedWeight | None
    ) -> str | None:
        """Tell the observers of a weight; the key that stands for what is made with it."""
        match found:
            case ComposedWeight():
                with self.followed.apart():
                    self.observers.on_made(found, self._read(one), one.raw)
                return found.keys[0]
            case WeightPieces():
                self.observers.on_unseen(found.keys, "a piece of it is applied at a time")
            case AppliedWeight() if layout := self._find_layout(found, one.layout):
                with self.followed.apart():
                    self.observers.on_layout(found.key, layout)
                    self.observers.on_layer(found.key, self._read(one), None)
                return found.key
        return None

    def _read(self, candidate: WeightCandidate) -> LayerCall:
        self.call = candidate.read()
        origin = self.notes.of(candidate.other)
        if origin is not None and self.call.input is not candidate.other:
            self.notes.put(self.call.input, origin)  # in another form
        return self.call

    def _find_layout(self, found: AppliedWeight, read: Layout) -> Layout | None:
        """How the parameter lies to the weight of a call; None where another use counts."""
        layout = found.layout.chain(read)
        if layout is None:
            how = "it is applied in a form that cannot be followed"
            self.observers.on_unseen((found.key,), how)
            return None
        return layout if self.settled.layouts.get(found.key, layout) == layout else None

    def _make_current(self, key: str, source: Origin | None, added: Any) -> Origin:
        parents = (source,) if source is not None else ()
        fed = any(parent.fed for parent in parents)
        current = Origin(
            name=key, parents=parents, layer=key, data=True, fed=fed, driven=True, analog=True
        )
        more = self.notes.of(added)
        if more is None or not more.data:
            return current
        return make_origin("add", (current, more), inside=tuple(self.followed.inside))

    def _moved(
        self, shape: tuple[int, ...], function: Any, args: Any, kwargs: Any
    ) -> Layout | None:
        """What an operation does to a tensor of that shape, tried on one without memory."""
        with self.followed.apart(), torch._C.DisableTorchFunction():
            there = function(torch.empty(shape, device="meta"), *args[1:], **kwargs)
        return find_layout(shape, there.stride())


def _is_turned(origin: Origin | None) -> bool:
    """Whether a matrix was transposed just now, so that its features come first."""
    while origin is not None and origin.name in COPIES and len(origin.sources) == 1:
        (origin,) = origin.sources
    return origin is not None and origin.name in MOVES


def _undo_repeats(origin: Origin, before: Origin, result: Tensor) -> Origin:
    """A parameter that is repeated along new dimensions is applied as one that is not."""
    once, _ = drop_repeats(result)
    same = before.layout is not None and once.numel() == prod(before.layout.shape)
    return replace(origin, parameter=before.parameter, layout=before.layout) if same else origin


def _make_reshape_layout(before: tuple[int, ...], after: tuple[int, ...]) -> Layout:
    return Layout(held=before, view=after, order=tuple(range(len(after))), shape=after)
