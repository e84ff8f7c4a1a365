"""A network that is pruned at random, and what mending left of it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from pruned_networks import batches, made, rested
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.network import Network
from snnprune.graph.state import copy_tensors
from snnprune.masks import Masks
from snnprune.pruning.repair import Pruned


def masks_of(network: Network, kept: float = 0.5) -> dict[str, Tensor]:
    """Of every layer, `kept` of the weights at random and at least one."""
    drawn = torch.Generator().manual_seed(7)
    masks = {}
    for key, layer in network.layers.items():
        mask = torch.rand(layer.shape, generator=drawn) < kept
        mask.view(-1)[0] = True
        masks[key] = mask
    return masks


def cut(network: Network, masks: Masks, **given: Any) -> Pruned:
    """The network with its weights put to 0, as a repair gets it."""
    dense = copy_tensors(network.module)
    with torch.no_grad():
        for key, mask in masks.items():
            network.module.get_parameter(key).mul_(mask)
    return Pruned(
        network=network, dense=dense, masks=masks, batches=Batches(begin=batches), **given
    )


def pruned(name: str, kept: float = 0.5, **given: Any) -> Pruned:
    """The network of that name, pruned at random."""
    network = made(name)
    return cut(network, masks_of(network, kept), **given)


def whole(name: str) -> Pruned:
    """The network of that name under masks that keep all."""
    network = made(name)
    everything = {key: torch.ones(one.shape).bool() for key, one in network.layers.items()}
    return cut(network, everything)


def changed(before: Pruned) -> set[str]:
    """The keys of what is no longer as in the dense network."""
    now = before.network.module.state_dict()
    return {key for key, tensor in before.dense.items() if not torch.equal(now[key], tensor)}


def surroundings(module: nn.Module) -> dict[str, object]:
    """What no repair may leave otherwise: modes, hooks, requests for gradients, momenta."""
    found: dict[str, object] = {}
    for name, child in module.named_modules():
        found[f"{name} mode"] = child.training
        found[f"{name} hooks"] = len(child._forward_hooks) + len(child._forward_pre_hooks)
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            found[f"{name} momentum"] = child.momentum
            found[f"{name} count"] = int(child.get_buffer("num_batches_tracked"))
    for name, parameter in module.named_parameters():
        found[f"{name} asks"] = parameter.requires_grad
        found[f"{name} gradient"] = parameter.grad
        found[f"{name} identity"] = (id(parameter), parameter.data_ptr())
    return found


@contextlib.contextmanager
def dense(of: Pruned) -> Iterator[nn.Module]:
    """The module with the dense network's tensors, copied in and out."""
    module = of.network.module
    now = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    taking(module, of.dense)
    try:
        yield module
    finally:
        taking(module, now)


def taking(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put `tensors` in, but for membranes, which have the shape of a batch."""
    lasting = {key: tensor for key, tensor in tensors.items() if not key.endswith("v_mem")}
    module.load_state_dict(lasting, strict=False)
    rested(module)


class BrokenError(Exception):
    """Of the user's own code."""


def breaking(of: Pruned, after: int) -> Pruned:
    """With a way of running that breaks at the call after that many."""
    calls = 0

    def run(module: nn.Module, x: Tensor) -> object:
        nonlocal calls
        calls += 1
        output = module(x)
        if calls > after:
            raise BrokenError
        return output

    return replace(of, network=of.network.with_forward(run))
