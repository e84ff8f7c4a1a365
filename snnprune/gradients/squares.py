"""Gradients of weights, squared sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.gradients.passes import Means, Passes
from snnprune.gradients.uses import Use, Uses, made_of, rows, to_parameter, watched
from snnprune.network import Layer, LayerCall, Network

MIXED = 1e-3  # relative; above it the gradient of one sample is in the rows of another


def squared_gradient(passes: Passes) -> dict[str, Tensor]:
    """E[(dL_n/dw)^2]: what a sample's time steps and places give is added up before the square."""
    means = Means()
    with watched(passes.network) as (uses, weights, start):
        for losses in passes.losses(start):
            for key, parts in _parts(uses, passes.network, losses).items():
                means.add(key, _squares(parts, weights[key], len(losses)))
            means.samples += len(losses)
    return means.result()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One use of a layer, row by row."""

    call: LayerCall
    x: Tensor
    slope: Tensor
    owner: Tensor
    """The sample that each row is of, or another number where its gradient is 0."""


def _parts(uses: Uses, network: Network, losses: Tensor) -> dict[str, list[_Part]]:
    """The uses of each layer that gradients reach."""
    factors = torch.arange(1, len(losses) + 1, device=losses.device, dtype=losses.dtype)
    plain, weighted = uses.slopes(losses), uses.slopes(losses, weights=factors)
    parts: dict[str, list[_Part]] = {}
    for use, one, other in zip(uses.found, plain, weighted, strict=True):
        if one is not None and other is not None:
            part = _part(use, network.layers[use.key], one, other)
            parts.setdefault(use.key, []).append(part)
    return parts


def _part(use: Use, layer: Layer, plain: Tensor, weighted: Tensor) -> _Part:
    x, slope = rows(use.call.input, layer), rows(use.call.arranged(plain), layer)
    owner = owners(slope, rows(use.call.arranged(weighted), layer))
    if owner is None:
        raise InputError(
            "the gradients of the samples of a batch cannot be told apart",
            field=use.key,
            hint="does the network mix samples, or are time steps taken for samples? labels tell",
        )
    return _Part(call=use.call, x=x, slope=slope, owner=owner)


def owners(plain: Tensor, weighted: Tensor) -> Tensor | None:
    """The sample, from 0, of each of the rows, however samples and time steps lie in them.

    `plain` is the gradient of the sum of the samples' losses, `weighted` of their sum with factors
    1, 2, ...: a row of sample n is n + 1 times as large there. None where that holds for no n.
    """
    one, other = plain.flatten(1).double(), weighted.flatten(1).double()
    power = one.square().sum(1)
    factor = ((one * other).sum(1) / power).nan_to_num(0).round()
    rest = other - factor.unsqueeze(1) * one
    if rest.square().sum() > MIXED**2 * other.square().sum():
        return None
    return factor.long() - 1


def _squares(parts: list[_Part], parameter: nn.Parameter, samples: int) -> Tensor:
    """The sum over samples of their squared gradients."""
    total = torch.zeros_like(parameter, dtype=torch.float64, requires_grad=False)
    for sample in range(samples):
        gradient = torch.zeros_like(parameter, requires_grad=False)
        for part in parts:
            own = part.owner == sample
            if bool(own.any()):
                made = made_of(part.call, part.x[own], part.slope[own])
                gradient += to_parameter(made, part.call, parameter)
        total += gradient.double().square()
    return total
