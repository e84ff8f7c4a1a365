"""The Hessian times the gradient."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from snnprune.errors import InputError
from snnprune.graph.calls import LayerCall
from snnprune.graph.hooks import watching
from snnprune.graph.links import Layer
from snnprune.graph.network import Network
from snnprune.measure.gradients.passes import Means, Passes, differentiable, holding, slopes


def mean_gradient(passes: Passes) -> dict[str, Tensor]:
    """E[dL/dw], the mean over samples."""
    means = Means()
    with differentiable(passes.network) as weights, passes.network.reset_between_batches() as start:
        for losses in passes.losses(start):
            for key, slope in zip(weights, slopes(losses, list(weights.values())), strict=True):
                means.add(key, slope)
            means.samples += len(losses)
    return means.result()


@dataclass(frozen=True, kw_only=True)
class Use:
    """One use of a layer: what went in, and where the gradient of what came out is."""

    key: str
    call: LayerCall
    edge: GradientEdge


class Uses:
    """The uses of all layers in one forward pass."""

    def __init__(self) -> None:
        self.found: list[Use] = []
        self.call: LayerCall | None = None

    def on_layer(self, _: str, call: LayerCall) -> None:
        self.call = call

    def on_current(self, key: str, current: Tensor) -> None:
        made = self.call is not None and self.call.weight.requires_grad  # and not of detached data
        if self.call is not None and made and current.requires_grad:
            # the edge, because what comes after may write into the current
            edge = get_gradient_edge(current)
            self.found.append(Use(key=key, call=self.call, edge=edge))

    def slopes(self, losses: Tensor, *, weights: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """dL/dI of each use, in the shape of the layer's output I."""
        edges = [use.edge for use in self.found]
        return slopes(losses, edges, weights=weights, again=True)


@contextlib.contextmanager
def watched(
    network: Network,
) -> Iterator[tuple[Uses, dict[str, nn.Parameter], Callable[[], None]]]:
    """Gives the uses of layers in a batch, the weights, and the function that begins a batch."""
    uses = Uses()
    seen = watching(network, on_layer=uses.on_layer, on_current=uses.on_current)
    with differentiable(network) as weights, seen as reset:

        def start() -> None:
            uses.found.clear()
            reset()

        yield uses, weights, start


def rows(tensor: Tensor, layer: Layer) -> Tensor:
    """(rows, C, *space), whatever stands before the channels."""
    return tensor.detach().reshape(-1, *tensor.shape[layer.channel_axis :])


def made_of(call: LayerCall, x: Tensor, slope: Tensor) -> Tensor:
    """The gradient of the weight in a call, of these rows of its input and of dL/dI."""
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        if call.kind == "linear" and call.groups == 1:
            return slope.T @ x
        weight = torch.zeros_like(call.weight, requires_grad=True)
        made = call.applied(x, weight)
        return torch.autograd.grad(made, weight, slope)[0]


def to_parameter(gradient: Tensor, call: LayerCall, parameter: nn.Parameter) -> Tensor:
    """The gradient of the parameter that a call's weight is, or is a multiple of."""
    if call.weight is parameter:
        return gradient
    with torch._C.DisableTorchFunction():
        return torch.autograd.grad(call.weight, parameter, gradient, retain_graph=True)[0]


def absolute_gradient(passes: Passes) -> dict[str, Tensor]:
    """E[sum over time and places of |x| |dL/dI|]: no two of them cancel."""
    means = Means()
    with watched(passes.network) as (uses, weights, start):
        for losses in passes.losses(start):
            for use, slope in zip(uses.found, uses.slopes(losses), strict=True):
                if slope is not None:
                    layer = passes.network.layers[use.key]
                    x, delta = rows(use.call.input, layer), rows(use.call.arranged(slope), layer)
                    gradient = made_of(use.call, x.abs(), delta.abs())
                    means.add(use.key, to_parameter(gradient, use.call, weights[use.key]).abs())
            means.samples += len(losses)
    return means.result()


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


STEP = 1e-3
"""How far weights move along the gradient, in shares of their norm: rounding of float32 gradients
is far below it, and it is wide enough to meet spikes that change."""


def hessian_gradient(passes: Passes) -> dict[str, Tensor]:
    """H g of the mean loss, by (g(w + e g) - g(w - e g)) / 2e.

    A difference, because the backward passes of many neurons cannot be differentiated once more.
    Weights that are 0 are taken for pruned and stay 0.
    """
    network = passes.network
    direction = {
        key: slope * (network.weight(key).cpu() != 0)
        for key, slope in mean_gradient(passes).items()
    }
    weights: dict[str, nn.Parameter] = {key: network.module.get_parameter(key) for key in direction}
    length = _norm(direction)
    if length == 0:
        return direction
    step = STEP * _norm({key: weight.detach() for key, weight in weights.items()}) / length
    ahead, behind = (
        _gradient_at(passes, weights, direction, step=way * step) for way in (1.0, -1.0)
    )
    return {key: (ahead[key] - behind[key]) / (2 * step) for key in direction}


def _gradient_at(
    passes: Passes, weights: dict[str, nn.Parameter], direction: dict[str, Tensor], *, step: float
) -> dict[str, Tensor]:
    """The mean gradient where the weights are `step` further along `direction`."""
    there = {
        key: (weight.detach().double() + step * direction[key].to(weight.device)).to(weight.dtype)
        for key, weight in weights.items()
    }
    with holding(weights, there):
        return mean_gradient(passes)


def _norm(tensors: dict[str, Tensor]) -> float:
    """Of all of them together."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
