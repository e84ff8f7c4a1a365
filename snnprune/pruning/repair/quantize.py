"""Kept weights on a grid of integers, layer by layer, as the last thing that is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snnprune.graph.network import Layer, Network
from snnprune.graph.state import copy_tensors
from snnprune.masks import Masks
from snnprune.measure import Natural
from snnprune.measure.integers import (
    QuantizedRows,
    choose_scales,
    multiply_scales,
    quantize_rows,
    round_to_grid,
)
from snnprune.measure.second_moments import GramSum, is_free
from snnprune.pruning.criteria.obs import RIDGE
from snnprune.pruning.repair import Pruned, explain_unfitted
from snnprune.pruning.repair.batchnorm import match, measure_dense_norms
from snnprune.pruning.repair.layerwise import PrunedLayers

BYTE = 8  # bits
PULL = 1.0
"""The ridge of the fit before: spikes that have flipped are noise in the inputs, and a fit to noisy
inputs makes weights smaller than they should be."""


@dataclass(frozen=True, kw_only=True)
class IntegerWeight:
    """A weight on its grid: `integers * scale` in float32 is what the network has."""

    integers: Tensor
    """In the form of the parameter, int8, beyond 8 bits int16."""
    scale: Tensor
    """Of each output channel, float32, in a shape that broadcasts, as (out, 1, 1, 1)."""

    def multiply(self) -> Tensor:
        """The weight, float32, in the form of the parameter."""
        return multiply_scales(self.integers, self.scale)

    def shape_as(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Integers of that shape, and the scale such that it broadcasts against them."""
        if tuple(shape) == tuple(self.integers.shape):
            return self.integers, self.scale
        return self.integers.reshape(*shape), self.scale.expand_as(self.integers).reshape(*shape)


@dataclass(frozen=True, kw_only=True)
class LayerQuantization:
    """How a layer came to its grid, and what of its current that costs."""

    kept: Natural
    zeros: Natural
    """Of the kept weights, those that are 0 on the grid."""
    lost_by_rounding: float | None
    """E|dw x|^2 over E|w x|^2, means taken up, were each weight rounded by itself; None where
    nothing was measured."""
    lost: float | None
    """The same as the layer is."""
    reason: str | None
    """Why each weight was rounded by itself; None where the others made up for its error."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What came of all weights."""

    bits: Natural
    weights: Mapping[str, IntegerWeight]
    """By weight key."""
    layers: Mapping[str, LayerQuantization]


def quantize_by_rounding(
    weights: Mapping[str, Tensor],
    masks: Masks,
    bits: int,
    *,
    reasons: Mapping[str, str],
    network: Network | None = None,
) -> Quantized:
    """Each of `weights`, by key, on its grid by itself; `reasons` say why.

    Output channels are what the network's layers say, or else what comes first.
    """
    found, layers = {}, {}
    for key, weight in weights.items():
        layer = None if network is None else network.layers.get(key)
        rows = _get_rows(weight * masks[key].to(weight.device), layer)
        scales = choose_scales(rows, bits)
        integers = round_to_grid(rows, scales, bits)
        found[key] = _make_integer_weight(integers, scales, weight.shape, layer, bits)
        layers[key] = _describe(found[key], masks[key], reason=reasons[key])
    return Quantized(bits=bits, weights=found, layers=layers)


@torch.no_grad()
def quantize(pruned: Pruned, bits: int) -> Quantized:
    """Put the kept weights of a network that is pruned and repaired on grids of integers.

    Layer by layer, as `refit` goes, and towards the currents of the network as it was given: what
    `tune` made of it is no longer the dense network's, layer by layer. First the kept weights are
    fitted to these currents on the inputs that come of the layers before, which are quantized, and
    pulled towards what they are; then each goes on its grid, and those of its row that are still
    free make up for its error, see `measure.integers.compensate`. The scale of a row is that of the
    fitted one. Means go to the bias where there is one, which stays a float; BatchNorm statistics
    are matched meanwhile and at last. A layer that cannot be gone through is rounded.
    """
    network, module = pruned.network, pruned.network.module
    as_given = replace(pruned, dense=copy_tensors(module))
    norms = measure_dense_norms(as_given)
    layers = PrunedLayers.of(as_given, norms=norms, filtered=True)
    left = _explain_left(network, pruned.masks, layers.order)
    by_itself = quantize_by_rounding(
        {key: module.get_parameter(key) for key in left},
        pruned.masks,
        bits,
        reasons=left,
        network=network,
    )
    _load_weights(network, by_itself.weights)
    found, told = dict(by_itself.weights), dict(by_itself.layers)
    for key in layers.keys("quantizing"):
        mask, moments = pruned.masks[key], layers.moments(key)
        layers.fit(key, moments, mask, ridge=PULL)
        rows, scales = _quantize_layer(network, key, mask, moments, bits)
        weight = module.get_parameter(key)
        layer = network.layers[key]
        found[key] = _make_integer_weight(rows.integers, scales, weight.shape, layer, bits)
        _load_weights(network, {key: found[key]})
        layers.give_bias(key, moments, _get_rows(weight, layer).view_as(rows.integers).double())
        told[key] = _describe(found[key], mask, rows=rows)
    match(as_given, norms)
    return Quantized(
        bits=bits,
        weights={key: found[key] for key in pruned.masks},
        layers={key: told[key] for key in pruned.masks},
    )


def _explain_left(network: Network, masks: Masks, order: tuple[str, ...]) -> dict[str, str]:
    """The weights that are not gone through, and why."""
    reasons = explain_unfitted(network, masks)
    return {
        key: reasons.get(key, "no pass over the images uses it")
        for key in masks
        if key not in order
    }


def _quantize_layer(
    network: Network, key: str, mask: Tensor, moments: GramSum, bits: int
) -> tuple[QuantizedRows, Tensor]:
    """The rows (groups, out, d) of a layer on their grid, and their scales (groups, out, 1)."""
    layer, weight = network.layers[key], network.module.get_parameter(key)
    matrix = moments.gram(free=is_free(network, key)).compute_matrix()
    shape = (len(matrix), -1, matrix.shape[1])
    rows = _get_rows(weight, layer).reshape(shape)
    keep = _get_rows(mask.to(weight.device), layer).reshape(shape)
    scales = choose_scales(rows * keep, bits)
    return quantize_rows(matrix, rows, keep, scales, bits, ridge=RIDGE), scales


def _get_rows(held: Tensor, layer: Layer | None) -> Tensor:
    """What is in the form of a parameter, as (out, d)."""
    return (held if layer is None else layer.weight_of(held)).flatten(1)


def _make_integer_weight(
    rows: Tensor, scales: Tensor, shape: torch.Size, layer: Layer | None, bits: int
) -> IntegerWeight:
    """The rows (..., out, d) and scales (..., out, 1) of a weight in the form of its parameter."""
    stored = rows.to(torch.int8 if bits <= BYTE else torch.int16)
    whole = scales.expand_as(rows).reshape(-1)
    if layer is None:
        return IntegerWeight(
            integers=stored.reshape(shape).cpu(), scale=_fold(whole.reshape(shape), 0)
        )
    integers = layer.parameter_of(stored.reshape(layer.shape))
    channels = torch.arange(layer.shape[0]).view(-1, *[1] * (len(layer.shape) - 1))
    places = layer.parameter_of(channels.expand(layer.shape))
    scale = layer.parameter_of(whole.reshape(layer.shape))
    return IntegerWeight(
        integers=integers.cpu().contiguous(), scale=_fold(scale, *_find_channel_axes(places))
    )


def _find_channel_axes(channels: Tensor) -> list[int]:
    """The dimensions along which the output channel changes."""
    axes = range(channels.dim())
    return [axis for axis in axes if bool((channels.diff(dim=axis) != 0).any())]


def _fold(scale: Tensor, *axes: int) -> Tensor:
    """One value along every dimension but `axes`."""
    for axis in set(range(scale.dim())) - set(axes):
        scale = scale.narrow(axis, 0, 1)
    return scale.cpu().contiguous()


def _load_weights(network: Network, weights: Mapping[str, IntegerWeight]) -> None:
    for key, found in weights.items():
        network.module.get_parameter(key).copy_(found.multiply())


def _describe(
    found: IntegerWeight,
    mask: Tensor,
    *,
    rows: QuantizedRows | None = None,
    reason: str | None = None,
) -> LayerQuantization:
    return LayerQuantization(
        kept=int(mask.sum()),
        zeros=int((mask.cpu() & (found.integers == 0)).sum()),
        lost_by_rounding=None if rows is None else rows.lost_by_rounding,
        lost=None if rows is None else rows.lost,
        reason=reason,
    )
