"""Watching a network run: what enters its layers, its membranes before reset, its spikes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnprune.network.links import Network
from snnprune.network.operations import layer_call

Observer = Callable[[str, Tensor], None]
"""Takes a name and a tensor that belongs to the network and must not be changed."""


@contextlib.contextmanager
def watching(
    network: Network,
    *,
    on_input: Observer | None = None,
    on_membrane: Observer | None = None,
    on_spikes: Observer | None = None,
) -> Iterator[None]:
    """Tell the observers what happens in the block; the network's output stays bit-identical.

    `on_input` gets a weight key and the tensor (..., C_in, *space) that enters its layer,
    `on_membrane` a neuron and its potential before reset (T, N, C, ...), `on_spikes` a neuron and
    its spikes. All hooks come off when the block ends, also by an exception.
    """
    with contextlib.ExitStack() as stack:
        for name, neuron in network.neurons.items():
            if on_membrane is not None:
                sink = partial(on_membrane, name)
                stack.enter_context(neuron.library.recording(neuron.module, sink))
            if on_spikes is not None:
                hook = _spike_hook(partial(on_spikes, name))
                stack.callback(neuron.module.register_forward_hook(hook).remove)
        if on_input is not None:
            stack.enter_context(_InputMode(network, on_input))
        yield


class _InputMode(TorchFunctionMode):
    """Sees the tensor that enters each layer, by the identity of the layer's parameter."""

    def __init__(self, network: Network, on_input: Observer) -> None:
        super().__init__()
        self.on_input = on_input
        self.keys = {id(network.module.get_parameter(key)): key for key in network.layers}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        call = layer_call(function, args, kwargs)
        if call and id(call.weight) in self.keys:
            self.on_input(self.keys[id(call.weight)], call.input)
        return function(*args, **kwargs)


def _spike_hook(sink: Callable[[Tensor], None]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        sink(output[0] if isinstance(output, tuple) else output)

    return hook
