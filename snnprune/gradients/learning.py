"""A network that is asked for gradients for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.network import Network, evaluating


@contextlib.contextmanager
def differentiable(network: Network) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode with surrogate gradients, asked for by the weights of layers alone.

    Gives these by key. Afterwards everything asks for what it asked for before; no `.grad` is
    touched.
    """
    module = network.module
    weights = {key: module.get_parameter(key) for key in network.layers}
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(module))
        for part in module.modules():
            stack.callback(_tensors_back(part))
        for neuron in network.neurons.values():
            if not neuron.sites:
                stack.enter_context(neuron.library.learning(neuron.module))
        for parameter in module.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        stack.enter_context(torch.enable_grad())
        yield weights


def _tensors_back(part: nn.Module) -> Callable[[], object]:
    """Puts back tensors that are attributes, as a weight that is made of others at each call."""
    attributes: dict[str, Any] = vars(part)
    before = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
    return lambda: attributes.update(before)


@contextlib.contextmanager
def holding(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """In the block the weights have these values, by key; then they are the same tensors again."""
    before = {key: weights[key].data for key in values}
    try:
        for key, value in values.items():
            weights[key].data = value
        yield
    finally:
        for key, value in before.items():
            weights[key].data = value
