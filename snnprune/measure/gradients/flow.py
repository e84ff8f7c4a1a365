"""Synaptic flow: what the weights alone let through; Tanaka et al. 2020, arXiv 2006.05467."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.data.batches import map_tensors
from snnprune.errors import InputError
from snnprune.graph.calls import LayerCall, NormCall, read_norm_call
from snnprune.graph.layer_calls import iter_candidates
from snnprune.graph.network import Network
from snnprune.measure.gradients.passes import (
    GradientPasses,
    SampleMeans,
    compute_slopes,
    enable_gradients,
    replace_weights,
    require_gradient,
)


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
