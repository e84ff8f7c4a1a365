"""Other ways than pruning in which weights and inputs change; Yao et al. 2023, section 6."""

from __future__ import annotations

import torch
from torch import Tensor

from snnprune.masks import select_lowest


def quantize_weight(weight: Tensor, bits: int, *, per_channel: bool) -> Tensor:
    """To whole multiples of a scale, from -(2^(bits-1) - 1) to 2^(bits-1) - 1; 0 stays 0.

    The scale is max|w| / (2^(bits-1) - 1), of the whole tensor or of each output channel.
    """
    levels = 2 ** (bits - 1) - 1
    rows = weight.double().flatten(1)
    largest = rows.abs().amax(1, keepdim=True) if per_channel else rows.abs().amax()
    scale = (largest / levels).clamp(min=torch.finfo(torch.float64).tiny)
    return ((rows / scale).round() * scale).reshape(weight.shape).to(weight.dtype)


def reduce_rank(weight: Tensor, keep: float, groups: int = 1) -> tuple[Tensor, int]:
    """The nearest of lower rank, and how many numbers its factors hold.

    Of a linear layer (out, in), or a convolution of a single place: the singular value
    decomposition with `keep` of its ranks. Of a convolution (out, in, *kernel): Tucker-2 by the
    higher-order SVD, a 1x1 convolution to `keep` of the ranks over the inputs, one of the kernel's
    size, and a 1x1 convolution to the outputs. One with `groups` is no such chain and stays.
    """
    if groups > 1:
        return weight, weight.numel()
    whole = weight.double()
    outs, ins, places = *weight.shape[:2], weight[0, 0].numel()
    if places == 1:
        rank = _count_rank(keep, min(outs, ins))
        u, s, v = torch.linalg.svd(whole.reshape(outs, ins), full_matrices=False)
        near = (u[:, :rank] * s[:rank]) @ v[:rank]
        return near.reshape(weight.shape).to(weight.dtype), rank * (outs + ins)
    outer = _compute_basis(whole.flatten(1), _count_rank(keep, min(outs, ins * places)))
    inner = _compute_basis(
        whole.transpose(0, 1).flatten(1), _count_rank(keep, min(ins, outs * places))
    )
    core = torch.einsum("oi...,or,is->rs...", whole, outer, inner)
    near = torch.einsum("rs...,or,is->oi...", core, outer, inner)
    return near.to(weight.dtype), core.numel() + outer.numel() + inner.numel()


def _count_rank(keep: float, ranks: int) -> int:
    return max(1, round(keep * ranks))


def drop_smallest(weight: Tensor, sparsity: float) -> Tensor:
    """With `round(sparsity * n)` weights 0, those of the least magnitude."""
    size = weight.abs().flatten()
    gone = select_lowest(size, round(sparsity * len(size)), ties_by=size)
    return weight.flatten().masked_fill(gone, 0).reshape(weight.shape)


def add_weight_noise(weight: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """With Gaussian noise of `share` standard deviations of the weights."""
    scale = share * float(weight.double().std(correction=0))
    return weight + scale * torch.randn(weight.shape, generator=draws).to(weight)


def add_gaussian_noise(x: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """A sample with noise of `share` standard deviations of its own values."""
    return x + share * x.std(correction=0) * torch.randn(x.shape, generator=draws).to(x)


def delete_spikes(x: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Each spike gone with that probability."""
    return x * (torch.rand(x.shape, generator=draws).to(x.device) >= share)


def insert_spikes(x: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """A spike where there was none, with that probability."""
    made = torch.rand(x.shape, generator=draws).to(x.device) < share
    return torch.where((x == 0) & made, torch.ones_like(x), x)


def jitter_spikes(x: Tensor, share: float, draws: torch.Generator, *, axis: int) -> Tensor:
    """Each spike a step later or earlier along `axis`, each with half that probability.

    What would leave the course stays at its end; spikes that meet are one.
    """
    moves = torch.rand(x.shape, generator=draws).to(x.device)
    later, earlier = moves < share / 2, (moves >= share / 2) & (moves < share)
    spikes = x != 0
    stays = spikes & ~later & ~earlier
    found = (
        stays | _shift_spikes(spikes & later, 1, axis) | _shift_spikes(spikes & earlier, -1, axis)
    )
    return found.to(x.dtype)


def _shift_spikes(spikes: Tensor, by: int, axis: int) -> Tensor:
    """Along an axis, what would leave it at its end."""
    steps = spikes.shape[axis]
    places = (torch.arange(steps, device=spikes.device) + by).clamp(0, steps - 1)
    moved = torch.zeros_like(spikes, dtype=torch.uint8)
    return moved.index_add(axis, places, spikes.to(torch.uint8)) > 0


def _compute_basis(rows: Tensor, rank: int) -> Tensor:
    """The first left singular vectors, (n, rank)."""
    u, _, _ = torch.linalg.svd(rows, full_matrices=False)
    return u[:, :rank]
