"""What the weights of one output are multiplied by, place by place."""

from __future__ import annotations

import torch
from torch import Tensor

from snnprune.network import LayerCall


def patches(x: Tensor, call: LayerCall) -> Tensor:
    """The rows (groups, n, in / groups * kernel) that `x`, (samples, C_in, *space), gives.

    A row lies as a weight of (in / groups, *kernel) does, flattened; there is one for every place
    of the output, sample by sample.
    """
    if call.kind == "linear":
        return x.unflatten(1, (call.groups, -1)).transpose(0, 1)
    kernel = call.weight.shape[2:]
    picking = torch.eye(kernel.numel(), dtype=x.dtype, device=x.device)
    # each channel by itself through filters that pick one place of the kernel
    single = x.reshape(-1, 1, *x.shape[2:])
    seen = call.applied(single, picking.view(-1, 1, *kernel), groups=1)
    by_group = seen.reshape(len(x), call.groups, -1, seen.shape[2:].numel())
    return by_group.permute(1, 0, 3, 2).flatten(1, 2)


def places(x: Tensor, call: LayerCall) -> int:
    """How many rows a sample of `x` gives."""
    if call.kind == "linear":
        return 1
    one = x.new_ones(1, 1, *call.weight.shape[2:])
    return call.applied(x[:1, :1], one, groups=1).numel()


def currents(rows: Tensor, weight: Tensor) -> Tensor:
    """What a layer makes of rows (groups, n, d), without its bias: (groups, n, out / groups)."""
    return rows @ weight.reshape(len(rows), -1, rows.shape[2]).mT
