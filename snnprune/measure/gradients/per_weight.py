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
from snnprune.graph.hooks import observe
from snnprune.graph.network import Layer, Network
from snnprune.measure.gradients.passes import (
    GradientPasses,
    SampleMeans,
    compute_slopes,
    enable_gradients,
    replace_weights,
)


def compute_mean_gradient(passes: GradientPasses) -> dict[str, Tensor]:
    """E[dL/dw], the mean over samples."""
    means = SampleMeans()
    with (
        enable_gradients(passes.network) as weights,
        passes.network.reset_between_batches() as start,
    ):
        for losses in passes.compute_losses(start):
            for key, slope in zip(
                weights, compute_slopes(losses, list(weights.values())), strict=True
            ):
                means.add(key, slope)
            means.samples += len(losses)
    return means.result()


@dataclass(frozen=True, kw_only=True)
class LayerUse:
    """One use of a layer: what went in, and where the gradient of what came out is."""

    key: str
    call: LayerCall
    edge: GradientEdge


class LayerUses:
    """The uses of all layers in one forward pass."""

    def __init__(self) -> None:
        self.found: list[LayerUse] = []
        self.call: LayerCall | None = None

    def on_layer(self, _: str, call: LayerCall) -> None:
        self.call = call

    def on_current(self, key: str, current: Tensor) -> None:
        made = self.call is not None and self.call.weight.requires_grad  # and not of detached data
        if self.call is not None and made and current.requires_grad:
            # the edge, because what comes after may write into the current
            edge = get_gradient_edge(current)
            self.found.append(LayerUse(key=key, call=self.call, edge=edge))

    def compute_slopes(
        self, losses: Tensor, *, weights: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """dL/dI of each use, in the shape of the layer's output I."""
        edges = [use.edge for use in self.found]
        return compute_slopes(losses, edges, weights=weights, again=True)


@contextlib.contextmanager
def observe_uses(
    network: Network,
) -> Iterator[tuple[LayerUses, dict[str, nn.Parameter], Callable[[], None]]]:
    """Gives the uses of layers in a batch, the weights, and the function that begins a batch."""
    uses = LayerUses()
    seen = observe(network, on_layer=uses.on_layer, on_current=uses.on_current)
    with enable_gradients(network) as weights, seen as reset:

        def start() -> None:
            uses.found.clear()
            reset()

        yield uses, weights, start


def reshape_to_rows(tensor: Tensor, layer: Layer) -> Tensor:
    """(rows, C, *space), whatever stands before the channels."""
    return tensor.detach().reshape(-1, *tensor.shape[layer.channel_axis :])


def compute_call_gradient(call: LayerCall, x: Tensor, slope: Tensor) -> Tensor:
    """The gradient of the weight in a call, of these rows of its input and of dL/dI."""
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        if call.kind == "linear" and call.groups == 1:
            return slope.T @ x
        weight = torch.zeros_like(call.weight, requires_grad=True)
        made = call.apply_weight(x, weight)
        return torch.autograd.grad(made, weight, slope)[0]


def convert_to_parameter(gradient: Tensor, call: LayerCall, parameter: nn.Parameter) -> Tensor:
    """The gradient of the parameter that a call's weight is, or is a multiple of."""
    if call.weight is parameter:
        return gradient
    with torch._C.DisableTorchFunction():
        return torch.autograd.grad(call.weight, parameter, gradient, retain_graph=True)[0]


def compute_absolute_gradient(passes: GradientPasses) -> dict[str, Tensor]:
    """E[sum over time and places of |x| |dL/dI|]: no two of them cancel."""
    means = SampleMeans()
    with observe_uses(passes.network) as (uses, weights, start):
        for losses in passes.compute_losses(start):
            for use, slope in zip(uses.found, uses.compute_slopes(losses), strict=True):
                if slope is not None:
                    layer = passes.network.layers[use.key]
                    x, delta = (
                        reshape_to_rows(use.call.input, layer),
                        reshape_to_rows(use.call.arranged(slope), layer),
                    )
                    gradient = compute_call_gradient(use.call, x.abs(), delta.abs())
                    means.add(
                        use.key, convert_to_parameter(gradient, use.call, weights[use.key]).abs()
                    )
            means.samples += len(losses)
    return means.result()


MIXED = 1e-3  # relative; above it the gradient of one sample is in the rows of another


def compute_squared_gradient(passes: GradientPasses) -> dict[str, Tensor]:
    """E[(dL_n/dw)^2]: what a sample's time steps and places give is added up before the square."""
    means = SampleMeans()
    with observe_uses(passes.network) as (uses, weights, start):
        for losses in passes.compute_losses(start):
            for key, parts in _collect_parts(uses, passes.network, losses).items():
                means.add(key, _sum_squares(parts, weights[key], len(losses)))
            means.samples += len(losses)
    return means.result()


@dataclass(frozen=True, kw_only=True)
class _RowsOfUse:
    """One use of a layer, row by row."""

    call: LayerCall
    x: Tensor
    slope: Tensor
    owner: Tensor
    """The sample that each row is of, or another number where its gradient is 0."""


def _collect_parts(
    uses: LayerUses, network: Network, losses: Tensor
) -> dict[str, list[_RowsOfUse]]:
    """The uses of each layer that gradients reach."""
    factors = torch.arange(1, len(losses) + 1, device=losses.device, dtype=losses.dtype)
    plain, weighted = uses.compute_slopes(losses), uses.compute_slopes(losses, weights=factors)
    parts: dict[str, list[_RowsOfUse]] = {}
    for use, one, other in zip(uses.found, plain, weighted, strict=True):
        if one is not None and other is not None:
            part = _make_part(use, network.layers[use.key], one, other)
            parts.setdefault(use.key, []).append(part)
    return parts


def _make_part(use: LayerUse, layer: Layer, plain: Tensor, weighted: Tensor) -> _RowsOfUse:
    x, slope = (
        reshape_to_rows(use.call.input, layer),
        reshape_to_rows(use.call.arranged(plain), layer),
    )
    owner = find_owners(slope, reshape_to_rows(use.call.arranged(weighted), layer))
    if owner is None:
        raise InputError(
            "the gradients of the samples of a batch cannot be told apart",
            field=use.key,
            hint="does the network mix samples, or are time steps taken for samples? labels tell",
        )
    return _RowsOfUse(call=use.call, x=x, slope=slope, owner=owner)


def find_owners(plain: Tensor, weighted: Tensor) -> Tensor | None:
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


def _sum_squares(parts: list[_RowsOfUse], parameter: nn.Parameter, samples: int) -> Tensor:
    """The sum over samples of their squared gradients."""
    total = torch.zeros_like(parameter, dtype=torch.float64, requires_grad=False)
    for sample in range(samples):
        gradient = torch.zeros_like(parameter, requires_grad=False)
        for part in parts:
            own = part.owner == sample
            if bool(own.any()):
                made = compute_call_gradient(part.call, part.x[own], part.slope[own])
                gradient += convert_to_parameter(made, part.call, parameter)
        total += gradient.double().square()
    return total


STEP = 1e-3
"""How far weights move along the gradient, in shares of their norm: rounding of float32 gradients
is far below it, and it is wide enough to meet spikes that change."""


def compute_hessian_gradient(passes: GradientPasses) -> dict[str, Tensor]:
    """H g of the mean loss, by (g(w + e g) - g(w - e g)) / 2e.

    A difference, because the backward passes of many neurons cannot be differentiated once more.
    Weights that are 0 are taken for pruned and stay 0.
    """
    network = passes.network
    direction = {
        key: slope * (network.weight(key).cpu() != 0)
        for key, slope in compute_mean_gradient(passes).items()
    }
    weights: dict[str, nn.Parameter] = {key: network.module.get_parameter(key) for key in direction}
    length = _compute_norm(direction)
    if length == 0:
        return direction
    step = STEP * _compute_norm({key: weight.detach() for key, weight in weights.items()}) / length
    ahead, behind = (
        _compute_gradient_at(passes, weights, direction, step=way * step) for way in (1.0, -1.0)
    )
    return {key: (ahead[key] - behind[key]) / (2 * step) for key in direction}


def _compute_gradient_at(
    passes: GradientPasses,
    weights: dict[str, nn.Parameter],
    direction: dict[str, Tensor],
    *,
    step: float,
) -> dict[str, Tensor]:
    """The mean gradient where the weights are `step` further along `direction`."""
    there = {
        key: (weight.detach().double() + step * direction[key].to(weight.device)).to(weight.dtype)
        for key, weight in weights.items()
    }
    with replace_weights(weights, there):
        return compute_mean_gradient(passes)


def _compute_norm(tensors: dict[str, Tensor]) -> float:
    """Of all of them together."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
