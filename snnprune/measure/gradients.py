"""What a backward pass finds for each weight: all that gradient criteria know of the data.

The last is synaptic flow, what the weights alone let through; Tanaka et al. 2020, arXiv 2006.05467.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.data.batches import Batches, map_tensors
from snnprune.errors import InputError
from snnprune.graph.calls import LayerCall, NormCall, read_norm_call
from snnprune.graph.hooks import observe
from snnprune.graph.layer_calls import iter_candidates
from snnprune.graph.network import Layer, Network
from snnprune.measure.gradient_passes import (
    GradientPasses,
    SampleMeans,
    compute_slopes,
    enable_gradients,
    replace_weights,
    require_gradient,
)

Found = Literal["gradient", "squared-gradient", "absolute-gradient", "hessian-gradient", "flow"]
"""`gradient` E[dL/dw], `squared-gradient` E[(dL/dw)^2] with a square for each sample,
`absolute-gradient` E[sum over time and places of |x| |dL/dI|] with the layer's input x and output
I, `hessian-gradient` H g of the mean loss, `flow` dR/d|w| of SynFlow; E is the mean over samples.
"""


def compute_weight_gradients(
    network: Network,
    batches: Batches,
    need: Found,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What `need` names for every layer, by weight key, in the weight's shape, float64 on the CPU.

    In eval mode, with the surrogate gradients of the network's own neurons. The loss of a sample is
    the mean over time of the cross-entropy, with its label or else with the class that the network
    itself chooses. They may be gone through several times; memory does not grow with
    their number, and their size matters to rounding alone. A weight that no gradient reaches is
    left out. Nothing in the network is changed afterwards. `seed` is for what the network draws.

    Raises:
        InputError: there is no sample, no gradient can be had, or samples cannot be told apart.
        NonFiniteError: the loss is NaN or infinite.
    """
    passes = GradientPasses(network=network, batches=batches, read=network.new_reader(), seed=seed)
    return FINDERS[need](passes)


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


def compute_flow(passes: GradientPasses) -> dict[str, Tensor]:
    """dR/d|w| where R is what all outputs add up to for an input of ones.

    Layers have their weights' absolute values and no bias, a BatchNorm is its factor
    |gamma| / sqrt(var + eps), spiking neurons are the identity. Of the data only the shape of the
    first batch is used.

    Raises:
        InputError: a neuron is no module, and nothing can take its place.
    """
    network, means = passes.network, SampleMeans()
    with (
        enable_gradients(network) as weights,
        # a gradient has the type of what it is of
        replace_weights(weights, {key: weight.data.double() for key, weight in weights.items()}),
        network.reset_between_batches() as start,
        _pass_through_neurons(network),
        _Linear(weights.values()),
    ):
        for steps, _ in passes.outputs(start, _fill_with_ones):
            require_gradient(steps)
            found = compute_slopes(steps.sum(), list(weights.values()))
            for key, slope in zip(weights, found, strict=True):
                means.add(key, None if slope is None else slope.abs())
            means.samples += steps.shape[1]
            break
    return means.result()


def _fill_with_ones(batch: Any) -> Any:
    """Ones for x; of a batch of another kind for its real numbers, not for lengths and the like."""
    if isinstance(batch, Tensor):
        return torch.ones_like(batch)
    return map_tensors(lambda t: torch.ones_like(t) if _is_real(t) else t, batch)


class _Linear(TorchFunctionMode):
    """Layers and normalisations as flow sees them, in float64: it grows with every layer."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.weights = {id(weight) for weight in weights}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for one in iter_candidates(function, args, kwargs):
            if one.is_layer or self._is_weight(one.raw):
                return _apply_layer(one.read())
        if norm := read_norm_call(function, args, kwargs):
            return _apply_norm(norm)
        return function(*args, **kwargs)

    def _is_weight(self, raw: Tensor) -> bool:
        """Whether it is a weight of a layer or looks at one."""
        return id(raw) in self.weights or id(raw._base) in self.weights


def _apply_layer(call: LayerCall) -> Tensor:
    made = call.apply_weight(call.samples.double(), call.weight.abs().double())
    before = call.input.shape[: call.input.dim() - 1 - call.space]
    return call.returned(made.reshape(*before, *made.shape[1:]))


def _apply_norm(call: NormCall) -> Tensor:
    factor = torch.ones((), dtype=torch.float64, device=call.input.device)
    if call.variance is not None:
        factor = factor / (call.variance.double() + call.eps).sqrt()
    if call.scale is not None:
        factor = factor * call.scale.double().abs()
    return call.input * factor.reshape(-1, *[1] * (call.input.dim() - 2))


@contextlib.contextmanager
def _pass_through_neurons(network: Network) -> Iterator[None]:
    """In the block spiking neurons put out what they are given, in the form of their output."""
    with contextlib.ExitStack() as stack:
        for name, neuron in network.neurons.items():
            if neuron.sites:
                raise InputError(
                    f"{name} is a comparison in somebody's code, which flow cannot pass by",
                    field="--criterion",
                    hint="synflow needs neurons that are modules of a known library",
                )
            given: list[Tensor] = []
            enter, leave = _make_entry_hook(given), _make_exit_hook(given, name)
            module = neuron.module
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield


def _make_entry_hook(given: list[Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        given.append(next(leaf for leaf in tree_leaves((args, kwargs)) if _is_real(leaf)))
        return tree_map(_detach_leaf, (args, kwargs))

    return enter


def _make_exit_hook(given: list[Tensor], name: str) -> Callable[[nn.Module, Any, Any], Any]:
    def leave(_: nn.Module, __: Any, output: Any) -> Any:
        x = given.pop()
        if not any(_is_real(leaf) and leaf.shape == x.shape for leaf in tree_leaves(output)):
            raise InputError("does not put out what flow can pass by", field=name)
        # membranes beside the spikes too: some networks are read by them
        return tree_map(
            lambda leaf: x if _is_real(leaf) and leaf.shape == x.shape else leaf, output
        )

    return leave


def _is_real(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _detach_leaf(leaf: Any) -> Any:
    """What the neuron itself is run on, only for the form of its output."""
    return leaf.detach().float() if _is_real(leaf) else leaf


FINDERS: Mapping[Found, Callable[[GradientPasses], dict[str, Tensor]]] = {
    "gradient": compute_mean_gradient,
    "squared-gradient": compute_squared_gradient,
    "absolute-gradient": compute_absolute_gradient,
    "hessian-gradient": compute_hessian_gradient,
    "flow": compute_flow,
}
