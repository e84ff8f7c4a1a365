"""Watching a network run: what enters its layers, its membranes before reset, its spikes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnprune.network.links import Network
from snnprune.network.operations import layer_call, norm_call

Observer = Callable[[str, Tensor], None]
"""Takes a name and a tensor that belongs to the network and must not be changed."""


@contextlib.contextmanager
def watching(
    network: Network,
    *,
    on_input: Observer | None = None,
    on_membrane: Observer | None = None,
    on_spikes: Observer | None = None,
    on_norm: Observer | None = None,
) -> Iterator[None]:
    """Tell the observers what happens in the block; the network's output stays bit-identical.

    `on_input` gets a weight key and the tensor (..., C_in, *space) that enters its layer,
    `on_membrane` a neuron and u - u_th before reset (T, N, C, ...), `on_spikes` a neuron and
    its spikes, `on_norm` the key of a running variance and the tensor (N, C, ...) that is about to
    be normalised. All hooks come off when the block ends, also by an exception.
    """
    with contextlib.ExitStack() as stack:
        for name, neuron in network.neurons.items():
            if on_membrane is not None:
                sink = partial(on_membrane, name)
                stack.enter_context(neuron.library.recording(neuron.module, sink))
            if on_spikes is not None:
                hook = _spike_hook(partial(on_spikes, name))
                stack.callback(neuron.module.register_forward_hook(hook).remove)
        if on_input is not None or on_norm is not None:
            stack.enter_context(_CallMode(network, on_input or _nobody, on_norm or _nobody))
        yield


class _CallMode(TorchFunctionMode):
    """Sees what enters each layer and normalisation, by the identity of their parameters."""

    def __init__(self, network: Network, on_input: Observer, on_norm: Observer) -> None:
        super().__init__()
        self.on_input, self.on_norm = on_input, on_norm
        self.weights = {id(network.module.get_parameter(key)): key for key in network.layers}
        self.buffers = {id(buffer): key for key, buffer in network.module.named_buffers()}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        layer = layer_call(function, args, kwargs)
        if layer and id(layer.weight) in self.weights:
            self.on_input(self.weights[id(layer.weight)], layer.input)
        norm = norm_call(function, args, kwargs)
        if norm and id(norm.variance) in self.buffers:
            self.on_norm(self.buffers[id(norm.variance)], norm.input)
        return function(*args, **kwargs)


def _nobody(name: str, tensor: Tensor) -> None:
    """Observe nothing."""


def _spike_hook(sink: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        sink(output[0] if isinstance(output, tuple) else output)

    return hook
