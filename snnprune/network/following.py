"""Following a forward pass: where each tensor came from, and what happens at layers and neurons.

Every tensor carries a note of its origin; functions pass the notes on. A spiking neuron module of a
known library is opaque: what goes in is its drive, what comes out is its spikes. Layers are known
by the identity of their parameter in a call that applies a weight, so neither class nor name
matters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snnprune.network.layer_calls import Candidate, LayerCall, addend, candidates, fused_weights
from snnprune.network.layout import Layout, turned
from snnprune.network.libraries import library_of
from snnprune.network.links import Gain, Norm, Settled
from snnprune.network.membrane import Membrane, is_of, unscaled
from snnprune.network.naming import name_of
from snnprune.network.notes import Channels, Notes
from snnprune.network.operations import (
    ComparisonCall,
    NormCall,
    comparison_call,
    norm_call,
    other_side,
    takes_some,
)
from snnprune.network.origins import MOVES, PICKS, SCALINGS, Origin, made_by, spikes_of
from snnprune.network.sites import Place, Site, Sites, here_in_code
from snnprune.network.walking import SHIFTS, Compared, compared
from snnprune.network.weights import KEEPS_ORDER, Applied, Made, Parts, applied

# What takes from a tensor its shape alone.
CONSTRUCTORS = frozenset(
    {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
    | {"randint_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"}
    | {"size", "stride", "dim", "numel", "__len__", "bernoulli", "normal", "uniform", "zero", "fill"}
)
# What takes its values from the first argument, and from others their shape or type.
LIKE = frozenset({"to", "type_as", "view_as", "expand_as", "reshape_as", "type", "_to_copy"})
# Straight-through surrogates are put together of these.
SUMS = frozenset({"add", "sub", "rsub"})
RESTING = 1024  # time steps of a membrane at rest that are kept until an input comes
NEAR = 12  # operations back in which a surrogate and its spikes are found


def _nothing(*_: Any) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Who is told what happens, mostly before it does; none may change a tensor."""

    on_layer: Callable[[str, LayerCall, str | None], None] = _nothing
    """Weight key, call, and the neuron module that the layer is a part of, if it is."""
    on_layout: Callable[[str, Layout], None] = _nothing
    """Weight key, and how its parameter lies to the weight of the call that is told of next."""
    on_made: Callable[[Made, LayerCall, Tensor], None] = _nothing
    """What a weight is made of as a whole, the call that applies it, and the weight in its form
    there."""
    on_unseen: Callable[[tuple[str, ...], str], None] = _nothing
    """Keys of parameters that are applied as weights where nothing can be seen, and by what."""
    on_current: Callable[[str, Tensor], None] = _nothing
    """Weight key, and what has come of the call that `on_layer` was told of."""
    on_norm: Callable[[str, NormCall], None] = _nothing
    """Key of the running variance, call."""
    on_drive: Callable[[str, tuple[Origin, ...], int | None], None] = _nothing
    """Name of a neuron module, where its input came from, and where that has its channels."""
    on_site: Callable[[Site, Tensor, Tensor], None] = _nothing
    """Site, u - u_th and the spikes, once they are there."""
    on_compared: Callable[[Site, int | None], None] = _nothing
    """Site, and where what is compared has the channels of the layer before it."""


class Follower(TorchFunctionMode):
    """Passes origins from tensor to tensor, and tells what arrives at layers and neurons."""

    def __init__(
        self,
        module: nn.Module,
        observers: Observers,
        settled: Settled | None = None,
        *,
        numbering: bool = False,
    ) -> None:
        """With `numbering`, the channels of currents are followed to where they are compared."""
        super().__init__()
        self.module, self.observers = module, observers
        self.settled = settled or Settled()
        self.notes = Notes(module)
        self.channels = Channels(self.notes) if numbering else None
        self.neurons = {n: m for n, m in module.named_modules() if library_of(m) is not None}
        self.depth = 0
        """How many neuron modules, or observers, we are inside of."""
        self.neuron: str | None = None
        """The outermost of these neuron modules."""
        self.inside: list[str] = []
        """Names of the modules that are being called."""
        self.call: LayerCall | None = None
        """The last call of a layer."""
        self.start()

    def start(self) -> None:
        """Begin a pass: what was met before it is forgotten."""
        self.notes.start()
        self.sites = Sites()
        self.fresh: dict[str, tuple[Site, Tensor]] = {}
        """The last spikes of each site, by what stands for them."""
        self.inside.clear()

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return self._inside_neuron(function, args, kwargs)
        if function is functional.multi_head_attention_forward:
            with self:
                return _opened(function)(*args, **kwargs)
        name = name_of(function)
        # before the call: it may work in place
        parents = () if name in CONSTRUCTORS else self.notes.among(_data_of(name, args, kwargs))
        origin = self._origin(function, args, kwargs, parents) if parents else None
        call = comparison_call(function, args, kwargs)
        reached = any(parent.data for parent in parents)
        membrane = self._membrane(call) if call and reached else None
        resting = None if call is None or reached else self._resting(call)
        result = function(*args, **kwargs)
        if resting is not None and isinstance(result, Tensor):
            self._keep(call, resting, result)
        if membrane is not None and isinstance(result, Tensor):
            origin = self._fired(membrane, result)
        elif origin is not None:
            origin = self._made(origin, function, args, kwargs, result)
        if origin is not None:
            self._note(args[0] if name in ("__setitem__", "__set__") else result, origin)
        return result

    @contextlib.contextmanager
    def following(self, *, scripts: bool) -> Iterator[None]:
        """Follow what is run in the block; with `scripts` also what TorchScript calls."""
        handles: list[Any] = []
        try:
            for name, module in self.module.named_modules():
                handles += self._hooks(name, module)
            with self, _Through() if scripts else contextlib.nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Follow nothing in the block."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def origins(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        return self.notes.among(tree)

    def _hooks(self, name: str, module: nn.Module) -> list[Any]:
        neuron = name in self.neurons
        enter = self._enter_neuron if neuron else self._enter
        leave = self._leave_neuron if neuron else self._leave
        return [
            module.register_forward_pre_hook(
                lambda _, args, kwargs: enter(name, (args, kwargs)), with_kwargs=True
            ),
            module.register_forward_hook(lambda _, __, output: leave(name, output)),
        ]

    def _enter(self, name: str, inputs: Any) -> None:
        if not self.inside:
            new = [leaf for leaf in tree_leaves(inputs) if self.notes.of(leaf) is None]
            self._note(new, Origin(name="input", data=True, analog=True))
        self.inside.append(name)

    def _leave(self, _: str, __: Any) -> None:
        self.inside.pop()

    def _enter_neuron(self, name: str, inputs: Any) -> None:
        if not self.depth:
            axes = [self._axis(leaf) for leaf in tree_leaves(inputs)]
            axis = next((one for one in axes if one is not None), None)
            self.observers.on_drive(name, self.notes.among(inputs), axis)
            self.neuron = name
        self.depth += 1

    def _leave_neuron(self, name: str, outputs: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.neuron = None
            self._note(outputs, spikes_of(name))

    def _inside_neuron(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run a call inside a neuron; recurrent ones have layers of their own."""
        weight = self._weight_inside(function, args, kwargs) if self.neuron is not None else None
        result = function(*args, **kwargs)
        if weight is not None:
            with self.apart():
                self.observers.on_current(weight, result)
        return result

    def _weight_inside(self, function: Any, args: Any, kwargs: Any) -> str | None:
        self._tell_unseen(function, args, kwargs)
        for one in candidates(function, args, kwargs):
            origin = self.notes.parameter(one.raw)
            if origin is not None and origin.parameter is not None:
                with self.apart():
                    self.observers.on_layout(origin.parameter, one.layout)
                    self.observers.on_layer(origin.parameter, one.read(), self.neuron)
                return origin.parameter
        return None

    def _tell_unseen(self, function: Any, args: Any, kwargs: Any) -> None:
        """Tell of weights that a fused call applies, as that of a whole LSTM cell."""
        known = [self.notes.of(one) for one in fused_weights(function, args, kwargs)]
        keys = tuple(one.parameter for one in known if one is not None and one.parameter)
        if keys:
            self.observers.on_unseen(keys, name_of(function))

    def _note(self, tree: Any, origin: Origin) -> None:
        leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        for leaf in leaves:
            # parts of one tensor are told apart, as its time steps
            self.notes.put(leaf, origin if len(leaves) == 1 else replace(origin))

    def _origin(self, function: Any, args: Any, kwargs: Any, parents: tuple[Origin, ...]) -> Origin:
        layer = self._layer(function, args, kwargs)
        if layer is not None:
            return layer
        self._tell_unseen(function, args, kwargs)
        normed = norm_call(function, args, kwargs)
        if normed and (key := self.notes.buffers.get(id(normed.variance))):
            return self._normed(key, normed)
        name = name_of(function)
        if name == "__getitem__" and takes_some(args):
            name = "index"
        made = made_by(name, parents, inside=tuple(self.inside))
        return self._scaled(made, args, kwargs) if name in SCALINGS | SHIFTS else made

    def _layer(self, function: Any, args: Any, kwargs: Any) -> Origin | None:
        """The origin of what a layer gives, and the observers told; None if the call is none."""
        for one in candidates(function, args, kwargs):
            origin, other = self.notes.of(one.raw), self.notes.of(one.other)
            if origin is None or not (one.is_layer or (other is not None and other.data)):
                continue  # of two matrices of the network's own a weight may come
            found = applied(origin, tuple(one.raw.shape), self.settled.functions)
            if isinstance(found, Made):
                with self.apart():
                    self.observers.on_made(found, self._read(one), one.raw)
                return self._current(found.keys[0], other, addend(function, args, kwargs))
            elif isinstance(found, Parts):
                self.observers.on_unseen(found.keys, "parts of it")
            elif found is not None and (layout := self._layout(found, one.layout)):
                with self.apart():
                    self.observers.on_layout(found.key, layout)
                    self.observers.on_layer(found.key, self._read(one), None)
                return self._current(found.key, other, addend(function, args, kwargs))
        return None

    def _read(self, candidate: Candidate) -> LayerCall:
        self.call = candidate.read()
        origin = self.notes.of(candidate.other)
        if origin is not None and self.call.input is not candidate.other:
            self.notes.put(self.call.input, origin)  # in another form
        return self.call

    def _layout(self, found: Applied, read: Layout) -> Layout | None:
        """How the parameter lies to the weight of a call; None where another use counts."""
        layout = found.layout.then(read)
        if layout is None:
            self.observers.on_unseen((found.key,), "another form of it")
            return None
        return layout if self.settled.layouts.get(found.key, layout) == layout else None

    def _current(self, key: str, source: Origin | None, added: Any) -> Origin:
        parents = (source,) if source is not None else ()
        fed = any(parent.fed for parent in parents)
        current = Origin(
            name=key, parents=parents, layer=key, data=True, fed=fed, driven=True, analog=True
        )
        more = self.notes.of(added)
        if more is None or not more.data:
            return current
        return made_by("add", (current, more), inside=tuple(self.inside))

    def _made(
        self, origin: Origin, function: Any, args: Any, kwargs: Any, result: Any
    ) -> Origin:
        """The origin, once it is there what was made."""
        if not isinstance(result, Tensor):
            self._number(function, args, kwargs, result, origin)
            return origin
        if origin.name in PICKS and isinstance(args[0], Tensor):
            if args[0].numel() == result.numel():  # an index of None adds a dimension
                origin = replace(origin, name="view")
        if origin.layer:
            with self.apart():
                self.observers.on_current(origin.layer, result)
            origin = replace(origin, shape=tuple(result.shape))
        elif not origin.data:
            return self._form_of_parameter(origin, function, args, kwargs, result)
        elif origin.name in SUMS and origin.driven and origin.fed:
            origin = self._straight_through(origin, result)
        self._number(function, args, kwargs, result, origin)
        return origin

    def _form_of_parameter(
        self, origin: Origin, function: Any, args: Any, kwargs: Any, result: Tensor
    ) -> Origin:
        """With how the parameter lies to it, where it is one in another form or a multiple."""
        (before, *others) = origin.parents
        if others or before.layout is None or result.numel() != _size(before.layout):
            return origin
        shape = tuple(result.shape)
        if origin.name in KEEPS_ORDER:
            after: Layout | None = Layout.of(before.layout.shape)
            if shape != before.layout.shape:
                after = Layout(
                    held=before.layout.shape, view=shape, order=tuple(range(len(shape))), shape=shape
                )
        elif origin.name in MOVES:
            after = self._moved(before.layout.shape, function, args, kwargs)
        else:
            after = None
        layout = before.layout.then(after) if after is not None else None
        return replace(origin, parameter=before.parameter, layout=layout) if layout else origin

    def _moved(
        self, shape: tuple[int, ...], function: Any, args: Any, kwargs: Any
    ) -> Layout | None:
        with self.apart(), torch._C.DisableTorchFunction():
            _, *rest = args
            there = function(torch.empty(shape, device="meta"), *rest, **kwargs)
        return turned(shape, there.stride())

    def _straight_through(self, origin: Origin, result: Tensor) -> Origin:
        """The spikes, where a surrogate was added to them and taken off again."""
        steps, seen = [origin], set[Origin]()
        for _ in range(NEAR):
            steps = [parent for here in steps for parent in here.sources if parent not in seen]
            seen.update(steps)
            steps = [here for here in steps if not here.layer and not here.neuron]
        for key in {one.neuron for one in seen if one.neuron in self.fresh}:
            site, spikes = self.fresh[key]
            own = set(site.events[-1].compared.forms) & seen
            with self.apart():
                if own and is_of(result, spikes):
                    return spikes_of(key)
        return origin

    def _number(
        self, function: Any, args: Any, kwargs: Any, result: Any, origin: Origin
    ) -> None:
        if self.channels is None or not origin.driven:
            return
        with self.apart():
            if origin.layer is None:
                self.channels.follow(function, args, kwargs, result, origin.name)
            elif self.call is not None and self.call.channels is not None:
                self.channels.begin(result, self.call.channels)

    def _axis(self, leaf: object) -> int | None:
        if self.channels is None:
            return None
        with self.apart():
            return self.channels.axis(leaf)

    def _scaled(self, made: Origin, args: Any, kwargs: Any) -> Origin:
        """The origin of a product, quotient, sum or difference, with the constant in it."""
        data = [leaf for leaf in tree_leaves((args, kwargs)) if self._is_data(leaf)]
        if len(data) != 1:
            return made
        if made.name == "neg":
            return replace(made, gain=Gain(value=-1.0))
        other = other_side(args, kwargs, data[0])
        if made.name == "div" and args and args[0] is not data[0]:
            return made  # one over it is no factor
        constant = self.notes.named(other)
        if made.name in SHIFTS:
            return replace(made, constant=constant)
        gain = Gain(value=other, divides=made.name == "div")
        return replace(made, constant=constant, gain=gain)

    def _is_data(self, leaf: Any) -> bool:
        origin = self.notes.of(leaf)
        return origin is not None and origin.data

    def _normed(self, key: str, call: NormCall) -> Origin:
        with self.apart():
            self.observers.on_norm(key, call)
        scale = self.notes.parameter(call.scale)
        norm = Norm(scale=scale.parameter if scale else None, variance=key, eps=call.eps)
        return made_by("batch_norm", self.notes.among(call.input), norm=norm)

    def _place(
        self, u: Tensor, threshold: Any, what: Compared | None, *, asked: tuple[bool, bool]
    ) -> Place:
        """Where a comparison is; `asked` is whether it is turned round, and if equality counts."""
        return Place(
            inside=tuple(self.inside),
            code=here_in_code(),
            shape=tuple(u.shape),
            written=(bool(what and what.turned), self.notes.named(threshold), *asked),
        )

    def _resting(self, call: ComparisonCall) -> Tensor | None:
        """u - u_th where nothing that was fed has come yet: maybe a membrane in its first steps."""
        u, threshold = call.above, call.below
        if not isinstance(u, Tensor) or not u.is_floating_point() or u.dim() < 2:
            return None
        if self.notes.of(u) is not None or not isinstance(threshold, Tensor | float | int):
            return None
        with self.apart():
            return u - threshold

    def _keep(self, call: ComparisonCall, distance: Tensor, result: Tensor) -> None:
        """Keep a membrane at rest until it is known whose it is."""
        asked = (False, call.also_equal)
        kept = self.sites.resting[self._place(call.above, call.below, None, asked=asked)]
        if len(kept) < RESTING and distance.shape == result.shape:
            with self.apart():
                kept.append((distance, (result > 0).to(distance.dtype)))

    def _membrane(self, call: ComparisonCall) -> Membrane | None:
        """What is compared where, if it is the membrane of a neuron."""
        for u, threshold in _sides(call, self.notes):
            what = compared(self.notes.among(u)[0])
            turned_round = u is call.below  # where u < u_th is asked, u = u_th is a spike
            also_equal = call.also_equal != turned_round
            place = self._place(u, threshold, what, asked=(turned_round, also_equal))
            if met := self.sites.at(what, place, also_equal=also_equal):
                self.observers.on_compared(met.site, self._axis(u))
                with self.apart():
                    own = what.scalings[: self._own_scalings(met.site, what)]
                    return Membrane(
                        met=met, distance=unscaled(u - threshold, own), turned=turned_round
                    )
        return None

    def _own_scalings(self, site: Site, what: Compared) -> int:
        return self.settled.scalings.get(site.index, len(what.scalings))

    def _fired(self, membrane: Membrane, result: Tensor) -> Origin:
        site = membrane.met.site
        if membrane.met.is_new:
            with self.apart():
                distance, spikes = membrane.told(result)
                if site.index in self.settled.resting:
                    for before in self.sites.resting.pop(site.place, []):
                        self.observers.on_site(site, *(one.view(distance.shape) for one in before))
                self.observers.on_site(site, distance, spikes)
                self.fresh[site.key] = (site, spikes.reshape(result.shape))
        return spikes_of(site.key)


def _data_of(name: str, args: Any, kwargs: Any) -> Any:
    """The arguments whose values go into what a call makes."""
    if name in LIKE:
        return (args[:1], kwargs.get("input"))
    if name in ("copy", "__set__") and len(args) > 1:
        return args[1]
    return (args, kwargs)


def _sides(call: ComparisonCall, notes: Notes) -> list[tuple[Tensor, Any]]:
    """What may be a membrane and its threshold; first what a layer's current is in."""
    pairs = [(call.above, call.below), (call.below, call.above)]
    known = [
        (u, threshold, origin)
        for u, threshold in pairs
        if isinstance(u, Tensor) and (origin := notes.of(u)) and origin.data
    ]
    floats = [one for one in known if one[0].is_floating_point()]
    return [(u, threshold) for u, threshold, _ in sorted(floats, key=lambda one: not one[2].driven)]


def _size(layout: Layout) -> int:
    return torch.Size(layout.shape).numel()


def _opened(function: FunctionType) -> FunctionType:
    """The same function, that does not ask whether somebody follows it: its parts are followed."""
    unasked = {**function.__globals__, "has_torch_function": lambda _: False}
    return FunctionType(
        function.__code__,
        unasked,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class _Through(TorchDispatchMode):
    """Changes nothing; while it is there, a function mode also sees what TorchScript calls."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler on the first call, which takes a second

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))
