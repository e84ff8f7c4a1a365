"""Following a forward pass: where each tensor came from, and what happens at layers and neurons.

Every tensor carries a note of its origin; functions pass the notes on. A spiking neuron module of a
known library is opaque: what goes in is its drive, what comes out is its spikes. Layers are known
by the identity of their parameter in a `conv` or `linear` call, so neither class nor name matters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snnprune.network.libraries import library_of
from snnprune.network.links import Gain, Norm
from snnprune.network.membrane import Membrane, unscaled
from snnprune.network.operations import (
    ComparisonCall,
    LayerCall,
    NormCall,
    comparison_call,
    layer_call,
    name_of,
    norm_call,
    other_side,
    takes_some,
)
from snnprune.network.origins import SCALINGS, Origin, made_by, spikes_of
from snnprune.network.sites import Place, Site, Sites
from snnprune.network.walking import (
    is_turned_parameter,
    membrane_chain,
    parameters_behind,
    scaled_parameter,
)

SHIFTS = frozenset({"add", "sub", "rsub"})
TURNING = frozenset({"neg", "rsub"})
NOTE = "_snnprune_origin"

# What takes from a tensor its shape alone.
CONSTRUCTORS = frozenset(
    {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
    | {"randint_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"}
)


def _nothing(*_: Any) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Who is told what happens, mostly before it does; none may change a tensor."""

    on_layer: Callable[[str, LayerCall, str | None], None] = _nothing
    """Weight key, call, and the neuron module that the layer is a part of, if it is."""
    on_made: Callable[[list[str], str, Tensor], None] = _nothing
    """Keys of the parameters that a weight is made of as a whole, by what, and the weight."""
    on_current: Callable[[str, Tensor], None] = _nothing
    """Weight key, and what has come of the call that `on_layer` was told of."""
    on_norm: Callable[[str, NormCall], None] = _nothing
    """Key of the running variance, call."""
    on_drive: Callable[[str, tuple[Origin, ...]], None] = _nothing
    """Name of a neuron module, and where its input came from."""
    on_site: Callable[[Site, Tensor, Tensor], None] = _nothing
    """Site, u - u_th and the spikes, once they are there."""


class Follower(TorchFunctionMode):
    """Passes origins from tensor to tensor, and tells what arrives at layers and neurons."""

    def __init__(self, module: nn.Module, observers: Observers) -> None:
        super().__init__()
        self.module, self.observers = module, observers
        named = module.named_parameters(remove_duplicate=True)
        self.parameters = {id(p): Origin(name=key, parameter=key) for key, p in named}
        self.buffers = {id(b): key for key, b in module.named_buffers()}
        self.held = list(module.buffers())  # a neuron may let go of one, and its id be given again
        self.neurons = {n: m for n, m in module.named_modules() if library_of(m) is not None}
        self.sites = Sites()
        self.inside: list[str] = []
        """Names of the modules that are being called."""
        self.depth = 0
        """How many neuron modules, or observers, we are inside of."""
        self.neuron: str | None = None
        """The outermost of these neuron modules."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            weight = self._inside_neuron(function, args, kwargs)
            result = function(*args, **kwargs)
            if weight is not None:
                with self.apart():
                    self.observers.on_current(weight, result)
            return result
        makes_new = name_of(function) in CONSTRUCTORS
        # before the call: it may work in place
        parents = () if makes_new else self._origins((args, kwargs))
        origin = self._origin(function, args, kwargs, parents) if parents else None
        compared = comparison_call(function, args, kwargs) if parents else None
        membrane = self._membrane(compared) if compared else None
        result = function(*args, **kwargs)
        if origin is not None and origin.layer and isinstance(result, Tensor):
            with self.apart():
                self.observers.on_current(origin.layer, result)
            origin = replace(origin, shape=tuple(result.shape))
        if membrane is not None and isinstance(result, Tensor):
            origin = self._fired(membrane, result)
        if origin is not None:
            self._note(args[0] if name_of(function) == "__setitem__" else result, origin)
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

    def start(self) -> None:
        """Begin a pass: what was met before it is forgotten."""
        self.sites = Sites()
        self.inside.clear()

    def origins(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        return self._origins(tree)

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
            self._note(
                [leaf for leaf in tree_leaves(inputs) if self._is_new(leaf)],
                Origin(name="input", data=True),
            )
        self.inside.append(name)

    def _is_new(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and self._origin_of(leaf) is None

    def _leave(self, _: str, __: Any) -> None:
        self.inside.pop()

    def _enter_neuron(self, name: str, inputs: Any) -> None:
        if not self.depth:
            self.observers.on_drive(name, self._origins(inputs))
            self.neuron = name
        self.depth += 1

    def _leave_neuron(self, name: str, outputs: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.neuron = None
            self._note(outputs, spikes_of(name))

    def _inside_neuron(self, function: Any, args: Any, kwargs: Any) -> str | None:
        """Tell of a layer inside a neuron, as recurrent ones have; its weight."""
        if self.neuron is None or (layer := layer_call(function, args, kwargs)) is None:
            return None
        origin = self.parameters.get(id(layer.weight))
        if origin is None:
            return None
        with self.apart():
            self.observers.on_layer(origin.name, layer, self.neuron)
        return origin.name

    def _origins(self, tree: Any) -> tuple[Origin, ...]:
        found = (self._origin_of(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
        return tuple(origin for origin in found if origin is not None)

    def _origin_of(self, tensor: Tensor) -> Origin | None:
        key = self.buffers.get(id(tensor), "")
        if key.endswith("running_var"):
            return Origin(name=key, variances=frozenset({key}))
        return self.parameters.get(id(tensor)) or getattr(tensor, NOTE, None)

    def _note(self, tree: Any, origin: Origin) -> None:
        for leaf in tree_leaves(tree):
            # a buffer outlives the pass: a note on it would reach the next one
            if isinstance(leaf, Tensor) and id(leaf) not in self.buffers:
                setattr(leaf, NOTE, origin)

    def _origin(self, function: Any, args: Any, kwargs: Any, parents: tuple[Origin, ...]) -> Origin:
        layer = layer_call(function, args, kwargs)
        if layer and (weight := self._weight_of(layer)):
            with self.apart():
                self.observers.on_layer(weight, layer, None)
            inputs = self._origins(layer.input)
            fed = any(origin.fed for origin in inputs)
            return Origin(name=weight, parents=inputs, layer=weight, data=True, fed=fed)
        normed = norm_call(function, args, kwargs)
        if normed and (key := self.buffers.get(id(normed.variance))):
            return self._normed(key, normed)
        name = name_of(function)
        if name == "__getitem__" and takes_some(args):
            name = "index"
        made = made_by(name, parents, place=self.inside[-1] if self.inside else "")
        return self._scaled(made, args, kwargs) if name in SCALINGS | SHIFTS else made

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
        constant = self._named(other)
        if made.name in SHIFTS:
            return replace(made, constant=constant)
        gain = Gain(value=other, divides=made.name == "div")
        return replace(made, constant=constant, gain=gain)

    def _is_data(self, leaf: Any) -> bool:
        origin = self._origin_of(leaf) if isinstance(leaf, Tensor) else None
        return origin is not None and origin.data

    def _named(self, constant: Any) -> str:
        """A number, or the key of a parameter or buffer, to know an operation again by."""
        if not isinstance(constant, Tensor):
            return repr(constant)
        parameter = self.parameters.get(id(constant))
        return parameter.name if parameter else self.buffers.get(id(constant), "")

    def _weight_of(self, call: LayerCall) -> str | None:
        origin = self._origin_of(call.weight)
        if origin is None:
            return None
        key = scaled_parameter(origin)
        turned = is_turned_parameter(origin)  # a tied decoder: pruned where it is used as it is
        if key is None and not turned and (made_of := parameters_behind(origin)):
            self.observers.on_made(made_of, origin.name, call.weight)
        return key

    def _normed(self, key: str, call: NormCall) -> Origin:
        with self.apart():
            self.observers.on_norm(key, call)
        scale = None if call.scale is None else self.parameters.get(id(call.scale))
        norm = Norm(scale=scale.parameter if scale else None, variance=key, eps=call.eps)
        return made_by("batch_norm", self._origins(call.input), norm=norm)

    def _membrane(self, call: ComparisonCall) -> Membrane | None:
        """What is compared where, if it is the membrane of a neuron."""
        for u, threshold in ((call.above, call.below), (call.below, call.above)):
            origin = self._origin_of(u) if isinstance(u, Tensor) else None
            if origin is None or not origin.data or not u.is_floating_point():
                continue
            turned = u is call.below  # where u < u_th is asked, u = u_th is a spike
            also_equal = call.also_equal != turned
            _, operations = membrane_chain(origin)
            place = Place(
                inside=tuple(self.inside),
                shape=tuple(u.shape),
                written=(
                    # the last operation alone: at the first step there is no state in the others
                    *(f"{made.name} {made.constant}" for made in operations[:1]),
                    f"{sum(made.name in TURNING for made in operations) % 2}",
                    f"{self._named(threshold)} {turned} {also_equal}",
                ),
            )
            if met := self.sites.at(origin, place, also_equal=also_equal):
                with self.apart():
                    distance = unscaled(u - threshold, operations)
                    return Membrane(met=met, distance=distance, turned=turned)
        return None

    def _fired(self, membrane: Membrane, result: Tensor) -> Origin:
        if membrane.met.is_new:
            with self.apart():
                self.observers.on_site(membrane.met.site, *membrane.told(result))
        return spikes_of(membrane.met.site.key)


class _Through(TorchDispatchMode):
    """Changes nothing; while it is there, a function mode also sees what TorchScript calls."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler on the first call, which takes a second

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))
