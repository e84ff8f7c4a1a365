"""A network in which nothing learns, for a while."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.network import Network
from snnprune.subnetworks.attaching import place_of


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter learns in the block; after it, parameters and buffers have their old values."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    values = [(parameter, parameter.detach().clone()) for parameter, _ in flags]
    buffers = [
        (part, name, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    module.requires_grad_(False)
    try:
        yield
    finally:
        _put_back(values, buffers)
        for parameter, learns in flags:
            parameter.requires_grad_(learns)


@torch.no_grad()
def _put_back(
    values: list[tuple[nn.Parameter, Tensor]], buffers: list[tuple[nn.Module, str, Tensor]]
) -> None:
    for parameter, before in values:
        parameter.copy_(before)
    for part, name, old in buffers:
        now = part._buffers.get(name)
        if now is None or now.shape != old.shape or now.is_inference():
            part._buffers[name] = old  # a neuron's state, which batches make anew
        else:
            now.copy_(old)


@torch.no_grad()
def neutralise(network: Network, names: Iterable[str]) -> None:
    """Biases beside the weights `names` become 0, BatchNorm plain and at its beginning.

    Gamma 1, beta 0, running statistics as in a new network.
    """
    for name in names:
        owner, own_name = place_of(network.module, name)
        bias = owner._parameters.get(own_name.replace("weight", "bias"))
        if bias is not None and bias is not owner._parameters[own_name]:
            bias.zero_()
    for part in network.module.modules():
        if isinstance(part, _BatchNorm):
            part.reset_running_stats()
            for learnt, value in ((part.weight, 1.0), (part.bias, 0.0)):
                if isinstance(learnt, Tensor):  # some norms have only one of them
                    learnt.fill_(value)
