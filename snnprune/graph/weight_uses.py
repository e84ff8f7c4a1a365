"""Weights in a forward pass: which parameter a call applies, as what, and who is told.

Where functions make a weight of a parameter, what they do with a 0 in it is tried.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.calls import LayerCall, NormCall, WeightCandidate, drop_repeats, name_of
from snnprune.graph.layer_calls import find_addend, iter_candidates, iter_fused_weights
from snnprune.graph.network import Layout, TraceSettings
from snnprune.graph.origins import MOVES, VIEWS, Origin, OriginNotes, make_origin
from snnprune.graph.state import replace_tensors
from snnprune.graph.thresholds import ThresholdSite, find_function_here

KEEPS_ORDER = frozenset(
    {"flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone"}
    | {"detach", "to", "float", "half", "bfloat16", "double", "type_as", "_to_copy", "data"}
    | {"alias", "type", "view_as", "_unsafe_view", "ravel", "reshape_as", "__getitem__", "cpu"}
    | {"cuda", "requires_grad", "mul", "div", "expand", "expand_as"}
)
"""Operations after which as many values lie as they did."""


@dataclass(frozen=True, kw_only=True)
class AppliedWeight:
    """The parameter that a weight is, or is an elementwise function of."""

    key: str
    layout: Layout
    """From the parameter to the weight as the call has it."""


@dataclass(frozen=True, kw_only=True)
class WeightPieces:
    """Parameters of which a weight is a piece, or the pieces of which it is put together."""

    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComposedWeight:
    """Parameters that a weight is made of as a whole: one of theirs changes many of its values."""

    keys: tuple[str, ...]
    how: str
    """The last operation, and the function in whose code it is."""


def find_applied_weight(
    origin: Origin, shape: Sequence[int], functions: Collection[str] = ()
) -> AppliedWeight | WeightPieces | ComposedWeight | None:
    """What a weight of that origin and `shape` is; None if no parameter had a part in it.

    `functions` are parameters that the network applies an elementwise function with f(0) = 0 to.
    """
    if origin.data:
        return None
    layout = origin.layout
    if layout is not None and origin.parameter and _is_layout_of(layout, shape):
        return AppliedWeight(key=origin.parameter, layout=layout)
    keys = tuple(find_parameters_behind(origin))
    if not keys:
        return None
    shaped = [key for key in keys if key in functions]
    if len(shaped) == 1:
        return AppliedWeight(key=shaped[0], layout=Layout.of(shape))
    if is_only_moved(origin):
        return WeightPieces(keys=keys)
    how = origin.name.lstrip("_")
    return ComposedWeight(keys=keys, how=f"{origin.written} ({how})" if origin.written else how)


def _is_layout_of(layout: Layout, shape: Sequence[int]) -> bool:
    """Whether a layout gives a weight of that shape; one of one dimension may be a mere factor."""
    is_matrix = len(layout.held) > 1 or len(shape) > 1
    return is_matrix and layout.shape == _match_shape(layout.shape, shape)


def _match_shape(known: tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...]:
    """The known shape where it is `shape` but for dimensions of one."""
    same = [one for one in known if one > 1] == [one for one in shape if one > 1]
    return known if same else tuple(shape)


def is_only_moved(origin: Origin) -> bool:
    """Whether parameters were put together or taken apart to make it, and no value changed."""
    steps = [origin]
    while steps:
        here = steps.pop()
        if here.parents and here.name not in VIEWS | MOVES:
            return False
        steps += here.parents
    return True


def find_parameters_behind(origin: Origin) -> list[str]:
    """The parameters that a weight is made of, those that are weights themselves."""
    found, steps, seen = [], [origin], set[Origin]()
    while steps:
        here = steps.pop()
        if here in seen:
            continue
        seen.add(here)
        steps += here.parents
        if here.parameter and not here.parents and here.layout and len(here.layout.held) > 1:
            found.append(here.parameter)
    return sorted(found)


def observe_nothing(*_: object) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Who is told what happens, mostly before it does.

    None may change a tensor, but `on_norm` the statistics that the call is about to read.
    """

    on_layer: Callable[[str, LayerCall, str | None], None] = observe_nothing
    """Weight key, call, and the neuron module that the layer is a part of, if it is."""
    on_layout: Callable[[str, Layout], None] = observe_nothing
    """Weight key, and how its parameter lies to the weight of the call that is told of next."""
    on_made: Callable[[ComposedWeight, LayerCall, Tensor], None] = observe_nothing
    """What a weight is made of as a whole, the call that applies it, and the weight in its form
    there."""
    on_unseen: Callable[[tuple[str, ...], str], None] = observe_nothing
    """Keys of parameters that are applied as weights where nothing can be seen, and by what."""
    give: Callable[[str], Tensor | None] = observe_nothing
    """Weight key: what the call that `on_layer` was told of gives, if it is not to be run."""
    on_current: Callable[[str, Tensor], None] = observe_nothing
    """Weight key, and what has come of the call that `on_layer` was told of."""
    on_norm: Callable[[str, NormCall], None] = observe_nothing
    """Key of the running variance, call."""
    on_drive: Callable[[str, tuple[Origin, ...], int | None], None] = observe_nothing
    """Name of a neuron module, where its input came from, and where that has its channels."""
    on_site: Callable[[ThresholdSite, Tensor, Tensor], None] = observe_nothing
    """Site, u - u_th and the spikes, once they are there."""
    on_compared: Callable[[ThresholdSite, Tensor], None] = observe_nothing
    """Site, and what is compared there."""
    on_restless: Callable[[str, str], None] = observe_nothing
    """Module, and what `find_restless_reason` says is done in it."""


class TracePass:
    """What all who follow a pass share."""

    def __init__(self, module: nn.Module, observers: Observers, settled: TraceSettings) -> None:
        self.observers, self.settled = observers, settled
        self.notes = OriginNotes(module)
        self.inside: list[str] = []
        """Names of the modules that are being called."""
        self.depth = 0
        """How many neuron modules, or observers, we are inside of."""

    def start(self) -> None:
        """Begin another pass: what was met before is forgotten."""
        self.notes.start()
        self.inside.clear()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Follow nothing in the block."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


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
            after = self._find_moves(before.layout.shape, function, args, kwargs)
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

    def _find_moves(
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


def find_layout(shape: Sequence[int], strides: Sequence[int]) -> Layout | None:
    """What an operation did to a contiguous tensor of `shape` that has those strides then.

    None where it did more than put dimensions in another order.
    """
    own = torch.empty(tuple(shape), device="meta").stride()
    places = [place for place, length in enumerate(shape) if length > 1]  # others say nothing
    by_stride = {own[place]: number for number, place in enumerate(places)}
    order = tuple(by_stride[stride] for stride in strides if stride in by_stride)
    if sorted(order) != list(range(len(places))):
        return None
    view = tuple(shape[place] for place in places)
    moved = tuple(view[place] for place in order)
    return Layout(held=tuple(shape), view=view, order=order, shape=moved)


Wholes = Mapping[tuple[str, ...], Tensor]
"""Weights that are made of parameters, by the keys of these."""
SAME = 1e-5  # relative, of values that another one has no part in


@dataclass(frozen=True, kw_only=True)
class WeightFunctions:
    """The parameters that can be pruned though the weight is made of them."""

    elementwise: frozenset[str] = frozenset()
    """A 0 in them is a 0 in the weight, and touches no other."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Parameters that kernels are made with, such as positions, by key; the weight beside them.

    A 0 of that weight takes its part out of the kernel, and touches no other.
    """


def find_functions(
    module: nn.Module, wholes: Wholes, again: Callable[[], Wholes]
) -> WeightFunctions:
    """Find them by setting some values of each parameter to 0.

    `again` runs the network and gives the weights that are made then. The smaller half of the
    values is taken, since a quantizer may take its scale from the largest.
    """
    elementwise, kept = set[str](), dict[str, str]()
    for keys, whole in wholes.items():
        for key in keys:
            parameter = module.get_parameter(key)
            if parameter.shape == whole.shape:
                if _is_free(module, key, keys, whole, again, _mask_smaller_half(parameter)):
                    elementwise.add(key)
            elif _has_rows(parameter, whole):
                gone = _mask_smaller_half(parameter.flatten(2).abs().amax(2))
                if _is_free(module, key, keys, whole, again, gone):
                    kept |= dict.fromkeys((one for one in keys if one != key), key)
    return WeightFunctions(elementwise=frozenset(elementwise), kept=kept)


def _has_rows(parameter: Tensor, whole: Tensor) -> bool:
    """Whether it has a row of values for each kernel of the weight."""
    return parameter.dim() > 2 and whole.dim() > 2 and parameter.shape[:2] == whole.shape[:2]


def _mask_smaller_half(values: Tensor) -> Tensor:
    """Where the smaller half of them is."""
    sizes = values.detach().abs().flatten()
    gone = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    gone[sizes.argsort(stable=True)[: len(sizes) // 2]] = True
    return gone.view(values.shape)


def _is_free(
    module: nn.Module,
    key: str,
    keys: tuple[str, ...],
    whole: Tensor,
    again: Callable[[], Wholes],
    gone: Tensor,
) -> bool:
    """Whether a weight is 0 where `gone` is set to 0 in the parameter, and as it was elsewhere."""
    parameter = module.get_parameter(key).detach()
    spread = gone.reshape(*gone.shape, *[1] * (parameter.dim() - gone.dim()))
    with replace_tensors(module, {key: parameter.masked_fill(spread, 0.0)}):
        made = again().get(keys)
    if made is None or made.shape != whole.shape:
        return False
    scale = float(whole.abs().max())
    same = (made - whole)[~gone].abs() <= SAME * max(scale, 1e-12)
    return bool((made[gone] == 0).all()) and bool(same.all())
