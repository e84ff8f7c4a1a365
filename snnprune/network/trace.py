"""Finding the links of any network in one forward pass.

Every tensor carries a note of where it came from; functions pass the notes on. A spiking neuron
module is opaque: what goes in is its drive, what comes out is its spikes. Layers are known by the
identity of their parameter in a `conv` or `linear` call, so neither class nor name matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from snnprune.errors import InputError
from snnprune.network.libraries import library_of
from snnprune.network.links import Layer, Network, Neuron, Norm
from snnprune.network.mode import evaluating
from snnprune.network.operations import LayerCall, NormCall, layer_call, norm_call
from snnprune.network.origins import Origin, Term, reaches_neuron, terms

NOTE = "_snnprune_origin"


@torch.no_grad()
def trace(
    module: nn.Module,
    example: Tensor,
    *,
    run: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x),
) -> Network:
    """The links of `module`, from one forward pass over `example` (a batch as it is fed to it).

    Raises:
        InputError: no spiking neuron is recognised, or a link is ambiguous.
    """
    follower = _Follower(module)
    with evaluating(module), follower.hooked(), follower:
        setattr(example, NOTE, Origin("input"))
        run(module, example)
    return follower.network()


class _Follower(TorchFunctionMode):
    """Passes origins from tensor to tensor, and keeps those that arrive at layers and neurons."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.parameters = {id(p): Origin(key, parameter=key) for key, p in _parameters(module)}
        self.buffers = {id(b): key for key, b in module.named_buffers(remove_duplicate=False)}
        self.layers: dict[str, Layer] = {}
        self.drives: dict[str, list[Origin]] = {}
        self.neurons = {n: m for n, m in module.named_modules() if library_of(m) is not None}
        self.depth = 0  # how many neuron modules we are inside of

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return function(*args, **kwargs)
        parents = self._origins((args, kwargs))  # before the call: it may work in place
        result = function(*args, **kwargs)
        if parents:
            self._note(result, self._origin(function, args, kwargs, parents))
        return result

    def hooked(self) -> _Hooks:
        """Hooks that make the neuron modules opaque, for as long as the block lasts."""
        return _Hooks(self)

    def enter_neuron(self, name: str, inputs: Any) -> None:
        if not self.depth:
            self.drives.setdefault(name, []).extend(self._origins(inputs))
        self.depth += 1

    def leave_neuron(self, name: str, outputs: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self._note(outputs, Origin(name, neuron=name))

    def network(self) -> Network:
        """The links that were seen.

        Raises:
            InputError: as `trace`.
        """
        if not self.neurons:
            raise InputError(
                "no spiking neuron found in the network",
                field="--model",
                hint=f"module types: {', '.join(_module_types(self.module))}",
            )
        layers, neurons = dict(self.layers), {}
        for name, drives in self.drives.items():
            found = [term for origin in drives for term in terms(origin)]
            for term in found:
                if term.layer is not None:
                    layers[term.layer] = _linked(layers[term.layer], name, term)
            neurons[name] = self._neuron(name, found)
        return Network(module=self.module, layers=layers, neurons=neurons)

    def _neuron(self, name: str, found: list[Term]) -> Neuron:
        module = self.neurons[name]
        library = library_of(module)
        assert library is not None
        return Neuron(
            name=name,
            module=module,
            library=library,
            constants=library.constants(module),
            feeders=_unique(term.layer for term in found),
            # its own state may come back to it as an argument
            identities=_unique(term.neuron for term in found if term.neuron != name),
        )

    def _origins(self, tree: Any) -> tuple[Origin, ...]:
        found = (self._origin_of(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
        return tuple(origin for origin in found if origin is not None)

    def _origin_of(self, tensor: Tensor) -> Origin | None:
        return self.parameters.get(id(tensor)) or getattr(tensor, NOTE, None)

    def _note(self, tree: Any, origin: Origin) -> None:
        for leaf in tree_leaves(tree):
            # a buffer outlives the pass: a note on it would reach the next one
            if isinstance(leaf, Tensor) and id(leaf) not in self.buffers:
                setattr(leaf, NOTE, origin)

    def _origin(self, function: Any, args: Any, kwargs: Any, parents: Any) -> Origin:
        layer = layer_call(function, args, kwargs)
        weight = self._weight_of(layer) if layer else None
        if layer and weight:
            self._see(weight, layer)
            return Origin(weight, self._origins(layer.input), layer=weight)
        normed = norm_call(function, args, kwargs)
        if normed and normed.variance is not None:
            return Origin("batch_norm", self._origins(normed.input), norm=self._norm(normed))
        return Origin(getattr(function, "__name__", "?"), parents)

    def _weight_of(self, call: LayerCall) -> str | None:
        origin = self._origin_of(call.weight)
        return origin.parameter if origin else None

    def _see(self, weight: str, call: LayerCall) -> None:
        fed_by_neuron = any(reaches_neuron(origin) for origin in self._origins(call.input))
        self.layers.setdefault(
            weight,
            Layer(
                weight=weight,
                kind=call.kind,
                shape=tuple(call.weight.shape),
                groups=call.groups,
                encoding=not fed_by_neuron,
            ),
        )

    def _norm(self, call: NormCall) -> Norm:
        scale = None if call.scale is None else self.parameters.get(id(call.scale))
        variance = self.buffers.get(id(call.variance))
        if variance is None:
            raise InputError("a BatchNorm's running variance is no buffer of the network")
        return Norm(scale=scale.parameter if scale else None, variance=variance, eps=call.eps)


class _Hooks:
    """Tells a follower when a neuron module is entered and left."""

    def __init__(self, follower: _Follower) -> None:
        self.follower = follower
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self.follower.neurons.items():
            self.handles += [
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: self.follower.enter_neuron(
                        name, (args, kwargs)
                    ),
                    with_kwargs=True,
                ),
                module.register_forward_hook(
                    lambda _, __, output, name=name: self.follower.leave_neuron(name, output)
                ),
            ]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _linked(layer: Layer, neuron: str, term: Term) -> Layer:
    """`layer` with its way to `neuron`; a second way must be the same one."""
    linked = replace(layer, neuron=neuron, norms=term.norms, through=term.through)
    if layer.neuron is not None and linked != layer:
        raise InputError(
            f"drives {layer.neuron} and {neuron} in different ways",
            field=layer.weight,
            hint="--criterion magnitude needs no links",
        )
    return linked


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(remove_duplicate=True)


def _module_types(module: nn.Module) -> list[str]:
    return sorted({type(child).__name__ for child in module.modules()})[:12]


def _unique(names: Iterator[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))
