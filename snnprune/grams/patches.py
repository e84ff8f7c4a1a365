"""What the weights of one output are multiplied by, place by place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.network import LayerCall

CONVOLUTIONS = {
    "conv1d": functional.conv1d,
    "conv2d": functional.conv2d,
    "conv3d": functional.conv3d,
}


def samples(call: LayerCall) -> Tensor:
    """The input of a call as (samples, C_in, *space), whatever stands before the channels."""
    if call.kind == "linear":
        return call.input.reshape(-1, call.input.shape[-1])
    space = call.weight.dim() - 2
    return call.input.reshape(-1, *call.input.shape[-1 - space :])


def patches(x: Tensor, call: LayerCall) -> Tensor:
    """The rows (groups, n, in / groups * kernel) that `x`, (samples, C_in, *space), gives.

    A row lies as a weight of (in / groups, *kernel) does, flattened; there is one for every place
    of the output, sample by sample.
    """
    if call.kind == "linear":
        return x.unsqueeze(0)
    kernel = call.weight.shape[2:]
    picking = torch.eye(kernel.numel(), dtype=x.dtype, device=x.device)
    # each channel by itself through filters that pick one place of the kernel
    single = x.reshape(-1, 1, *x.shape[2:])
    seen = CONVOLUTIONS[call.kind](single, picking.view(-1, 1, *kernel), **call.geometry)
    by_group = seen.reshape(len(x), call.groups, -1, seen.shape[2:].numel())
    return by_group.permute(1, 0, 3, 2).flatten(1, 2)


def places(x: Tensor, call: LayerCall) -> int:
    """How many rows a sample of `x` gives."""
    if call.kind == "linear":
        return 1
    one = x.new_ones(1, 1, *call.weight.shape[2:])
    return CONVOLUTIONS[call.kind](x[:1, :1], one, **call.geometry).numel()


def currents(rows: Tensor, weight: Tensor) -> Tensor:
    """What a layer makes of rows (groups, n, d), without its bias: (groups, n, out / groups)."""
    return rows @ weight.reshape(len(rows), -1, rows.shape[2]).mT
