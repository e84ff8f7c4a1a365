"""Kept weights on a grid of integers, layer by layer, as the last thing that is done to them.

A row is the weights of one output channel. Its grid is the whole multiples of its scale from
-(2^(bits-1) - 1) to 2^(bits-1) - 1; 0 is on it, so that pruned weights stay 0. Per layer, a row's
scale is one step of the layer over what BatchNorm multiplies the row by, so that all weights of the
layer are whole multiples of that step once BatchNorm is folded into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from snnprune.graph.network import Layer, Network, compute_norm_gain
from snnprune.graph.state import copy_tensors
from snnprune.masks import Masks
from snnprune.measure import Natural
from snnprune.measure.layer_inputs import count_usage
from snnprune.measure.second_moments import LayerMoments, damping, invert
from snnprune.pruning.criteria.obs import RIDGE
from snnprune.pruning.repair import Pruned, explain_unfitted
from snnprune.pruning.repair.batchnorm import match, measure_dense_norms
from snnprune.pruning.repair.layerwise import PrunedLayers

BYTE = 8  # bits
PULL = 1.0
"""The ridge of the fit before: spikes that have flipped are noise in the inputs, and a fit to noisy
inputs makes weights smaller than they should be."""


Per = Literal["channel", "layer"]


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
    per: Per
    """What has one scale, once BatchNorm is folded."""
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
    per: Per = "channel",
) -> Quantized:
    """Each of `weights`, by key, on its grid by itself; `reasons` say why.

    Output channels are what the network's layers say, or else what comes first.
    """
    found, layers = {}, {}
    for key, weight in weights.items():
        layer = None if network is None else network.layers.get(key)
        rows = _get_rows(weight * masks[key].to(weight.device), layer)
        scales = choose_scales(
            rows, bits, _find_gains(network, key, rows) if per == "layer" else None
        )
        integers = round_to_grid(rows, scales, bits)
        found[key] = _make_integer_weight(integers, scales, weight.shape, layer, bits)
        layers[key] = _describe(found[key], masks[key], reason=reasons[key])
    return Quantized(bits=bits, per=per, weights=found, layers=layers)


@torch.no_grad()
def quantize(pruned: Pruned, bits: int, per: Per = "channel") -> Quantized:
    """Put the kept weights of a network that is pruned and repaired on grids of integers.

    Layer by layer, as `refit` goes, and towards the currents of the network as it was given: what
    `tune` made of it is no longer the dense network's, layer by layer. First the kept weights are
    fitted to these currents on the inputs that come of the layers before, which are quantized, and
    pulled towards what they are; then each goes on its grid, and those of its row that are still
    free make up for its error, see `measure.integers.compensate`. The scale of a row is that of the
    fitted one. Means go to the bias where there is one, which stays a float; BatchNorm statistics
    are matched meanwhile and at last; per layer, their means alone, since variances are part of
    the scales. A layer that cannot be gone through is rounded.
    """
    network, module = pruned.network, pruned.network.module
    as_given = replace(pruned, dense=copy_tensors(module))
    norms = {
        key: replace(norm, gain_stays=per == "layer")
        for key, norm in measure_dense_norms(as_given).items()
    }
    usage = count_usage(network, pruned.batches)
    layers = PrunedLayers.of(as_given, usage, norms=norms, filtered=True)
    left = _explain_left(network, pruned.masks, layers.order)
    by_itself = quantize_by_rounding(
        {key: module.get_parameter(key) for key in left},
        pruned.masks,
        bits,
        reasons=left,
        network=network,
        per=per,
    )
    _load_weights(network, by_itself.weights)
    found, told = dict(by_itself.weights), dict(by_itself.layers)
    for key in layers.keys("quantizing"):
        mask, moments = pruned.masks[key], layers.moments(key)
        layers.fit(key, moments, mask, ridge=PULL)
        rows, scales = _quantize_layer(network, key, mask, moments, bits, per)
        weight = module.get_parameter(key)
        layer = network.layers[key]
        found[key] = _make_integer_weight(rows.integers, scales, weight.shape, layer, bits)
        _load_weights(network, {key: found[key]})
        layers.give_bias(key, moments, _get_rows(weight, layer).view_as(rows.integers).double())
        told[key] = _describe(found[key], mask, rows=rows)
    match(as_given, norms)
    return Quantized(
        bits=bits,
        per=per,
        weights={key: found[key] for key in pruned.masks},
        layers={key: told[key] for key in pruned.masks},
    )


def _find_gains(network: Network | None, key: str, rows: Tensor) -> Tensor:
    """What the rows (out, d) of a weight are multiplied by later, as far as anybody knows."""
    if network is None or key not in network.layers:
        return torch.ones(len(rows))
    return compute_norm_gain(network, key)


def _explain_left(network: Network, masks: Masks, order: tuple[str, ...]) -> dict[str, str]:
    """The weights that are not gone through, and why."""
    reasons = explain_unfitted(network, masks)
    return {
        key: reasons.get(key, "no pass over the data uses it") for key in masks if key not in order
    }


def _quantize_layer(
    network: Network, key: str, mask: Tensor, moments: LayerMoments, bits: int, per: Per
) -> tuple[QuantizedRows, Tensor]:
    """The rows (groups, out, d) of a layer on their grid, and their scales (groups, out, 1)."""
    layer, weight = network.layers[key], network.module.get_parameter(key)
    matrix = moments.matrix
    shape = (len(matrix), -1, matrix.shape[1])
    rows = _get_rows(weight, layer).reshape(shape)
    keep = _get_rows(mask.to(weight.device), layer).reshape(shape)
    gains = compute_norm_gain(network, key).reshape(shape[:2]) if per == "layer" else None
    scales = choose_scales(rows * keep, bits, gains)
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


GREEDY_WORK = 1e10  # of values that the order of OBQ goes over, half a minute on a CPU core
OWN_WORK = 1e12  # of multiplications of a Cholesky factor for each row, about a minute
MEMORY = 2**27  # bytes of the inverses that are in work


def count_levels(bits: int) -> int:
    """The largest integer of a grid of so many bits."""
    return int(2 ** (bits - 1)) - 1


def choose_scales(weights: Tensor, bits: int, gains: Tensor | None = None) -> Tensor:
    """The step of the grid of each row of (..., d), as (..., 1) float32.

    max|w| / (2^(bits-1) - 1), so that each row uses all of its grid; 1 for a row of 0. With
    `gains` (...) that rows are multiplied by later, the largest of these steps for products, over
    |gain|: all products are whole multiples of one number. A row of gain 0 has its own.
    """
    largest = weights.double().abs().amax(-1, keepdim=True)
    if gains is not None:
        factors = gains.double().abs().unsqueeze(-1).to(largest.device)
        shared = (largest * factors).max() / factors.clamp(min=torch.finfo(torch.float64).tiny)
        largest = torch.where(factors == 0, largest, shared)
    scales = (largest / count_levels(bits)).float().clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(largest == 0, torch.ones_like(scales), scales)


def round_to_grid(weights: Tensor, scales: Tensor, bits: int) -> Tensor:
    """The nearest integers of `weights` (..., d) under `scales` (..., 1): whole, float64."""
    levels = count_levels(bits)
    return (weights.double() / scales.double()).round().clamp(-levels, levels)


def multiply_scales(integers: Tensor, scales: Tensor) -> Tensor:
    """The weights of a grid: products in float32, the same wherever they are taken.

    The grid can be read back from them: w / scale is off an integer k by no more than k 2^-23, and
    k is below 2^15.
    """
    return integers.float() * scales


def compute_currents_lost(matrix: Tensor, change: Tensor) -> Tensor:
    """E|dw x|^2 of each row of `change` (groups, out, d) under E[x x'] (groups, d, d)."""
    return ((change @ matrix) * change).sum(-1)


@dataclass(frozen=True, kw_only=True)
class QuantizedRows:
    """Rows on their grid, and what that costs of E|w x|^2."""

    integers: Tensor
    """(groups, out, d), whole, float64."""
    lost: float
    """E|dw x|^2 over E|w x|^2, of all rows together."""
    lost_by_rounding: float
    """The same, were each weight rounded by itself."""


def quantize_rows(
    matrix: Tensor, weights: Tensor, keep: Tensor, scales: Tensor, bits: int, *, ridge: float
) -> QuantizedRows:
    """Rows (groups, out, d) on their grid, each weight's error made up for by the others.

    See `compensate`. A row that simple rounding serves better, as the clamp at the end of the grid
    may bring about, is rounded.
    """
    weights = weights.double() * keep
    rounded = round_to_grid(weights, scales, bits)
    found = compensate(matrix, weights, keep, scales, bits, ridge=ridge)
    plain = compute_currents_lost(matrix, rounded * scales - weights)
    made_up = compute_currents_lost(matrix, found * scales - weights)
    whole = compute_currents_lost(matrix, weights).sum().clamp(min=torch.finfo(plain.dtype).tiny)
    return QuantizedRows(
        integers=torch.where((made_up <= plain).unsqueeze(-1), found, rounded),
        lost=float(torch.minimum(made_up, plain).sum() / whole),
        lost_by_rounding=float(plain.sum() / whole),
    )


def compensate(
    matrix: Tensor, weights: Tensor, keep: Tensor, scales: Tensor, bits: int, *, ridge: float
) -> Tensor:
    """Integers (groups, out, d) near `weights`, by the least E|dw x|^2 that a greedy way finds.

    `matrix` is E[x x'] or a covariance, (groups, d, d) float64, `keep` (groups, out, d) says which
    weights there are: the others are 0 and stay so; `scales` is (groups, out, 1). One weight of a
    row after the other is put on the grid, and those of the row that are kept and still free make
    up for its error e_q by dw = -e_q [H^-1]_:q / [H^-1]_qq, with H the matrix of the kept columns
    and `ridge` times the mean of its diagonal added (Frantar and Alistarh 2022, arXiv 2208.11580,
    Eq. 7). With n kept weights in a row:

    * while the sum of n^3 over the rows is at most `GREEDY_WORK`, in the order of OBQ: the weight
      whose error costs least, e_q^2 / [H^-1]_qq, comes first;
    * while a third of it is at most `OWN_WORK`, inputs of the largest E[x^2] come first, as in GPTQ
      (Frantar et al. 2023, arXiv 2210.17323), by a Cholesky factor of each row's own inverse;
    * beyond that by one factor for all rows. What a pruned column would have to take is put to 0
      when its turn comes and made up for by those after it (Frantar and Alistarh 2023, arXiv
      2301.00774).
    """
    work = float(keep.sum(-1).double().pow(3).sum())
    found = torch.zeros_like(weights, dtype=torch.float64)
    for group, second in enumerate(matrix):
        rows, kept = weights[group].double(), keep[group]
        if work / 3 > OWN_WORK:
            found[group] = _sweep_together(second, rows, kept, scales[group], bits, ridge)
        else:
            greedy = work <= GREEDY_WORK
            found[group] = _compensate_rows(second, rows, kept, scales[group], bits, ridge, greedy)
    return found


def _compensate_rows(
    second: Tensor,
    weights: Tensor,
    keep: Tensor,
    scales: Tensor,
    bits: int,
    ridge: float,
    greedy: bool,
) -> Tensor:
    """Integers (out, d), each row under the inverse of its own kept columns."""
    scales = scales.double()
    raised = second + damping(second, ridge) * torch.eye(len(second)).to(second)
    # kept columns first, those of the largest E[x^2] before the others
    loud = second.diagonal().argsort(descending=True, stable=True)
    columns = loud[keep[:, loud].int().argsort(dim=1, descending=True, stable=True)]
    counts = keep.sum(1)
    order = counts.argsort(descending=True, stable=True)
    found = torch.zeros_like(weights)
    first = 0
    while first < len(order) and (size := int(counts[order[first]])):
        some = order[first : first + max(1, MEMORY // (8 * size**2))]
        places = columns[some, :size]
        there = torch.arange(size, device=places.device) < counts[some].unsqueeze(1)
        inverses = _invert_among(raised, places, there)
        rows = weights[some].gather(1, places)
        if greedy:
            integers = _quantize_cheapest_first(inverses, rows, scales[some], bits)
        else:
            factors = torch.linalg.cholesky(inverses, upper=True)
            integers = _sweep(factors, rows, there, scales[some], bits)
        found[some] = found[some].scatter(1, places, integers * there)
        first += len(some)
    return found


def _invert_among(matrix: Tensor, places: Tensor, there: Tensor) -> Tensor:
    """Inverses (R, n, n) of `matrix` (d, d) among `places` (R, n), where they are `there`.

    The others have the inverse 1 by themselves: they take no part.
    """
    among = matrix[places.unsqueeze(2), places.unsqueeze(1)]
    among = among * (there.unsqueeze(2) & there.unsqueeze(1))
    among.diagonal(dim1=1, dim2=2).add_((~there).to(among.dtype))
    return torch.cholesky_inverse(torch.linalg.cholesky(among))


def _quantize_cheapest_first(
    inverses: Tensor, weights: Tensor, scales: Tensor, bits: int
) -> Tensor:
    """Integers of rows (R, n), each under its H^-1 (R, n, n), in the order of OBQ.

    H^-1 loses the row and column of what has been put on the grid.
    """
    found, free = torch.zeros_like(weights), torch.ones_like(weights, dtype=torch.bool)
    for _ in range(weights.shape[1]):
        nearest = round_to_grid(weights, scales, bits)
        error = weights - nearest * scales
        cost = error**2 / inverses.diagonal(dim1=1, dim2=2)
        place = cost.masked_fill(~free, torch.inf).argmin(1, keepdim=True)
        column = inverses.gather(2, place.unsqueeze(1).expand(-1, weights.shape[1], -1)).squeeze(2)
        share = column / column.gather(1, place)
        found.scatter_(1, place, nearest.gather(1, place))
        free.scatter_(1, place, False)
        weights = weights - error.gather(1, place) * share
        inverses.baddbmm_(column.unsqueeze(2), share.unsqueeze(1), alpha=-1)
    return found


def _sweep_together(
    second: Tensor, weights: Tensor, keep: Tensor, scales: Tensor, bits: int, ridge: float
) -> Tensor:
    """Integers (out, d) by one factor of the inverse of all columns."""
    loud = second.diagonal().argsort(descending=True, stable=True)
    inverse = invert(second[loud][:, loud], ridge)
    factor = torch.linalg.cholesky(inverse, upper=True).unsqueeze(0)
    swept = _sweep(factor, weights[:, loud], keep[:, loud], scales.double(), bits)
    return torch.zeros_like(weights).index_copy(1, loud, swept)


def _sweep(factors: Tensor, weights: Tensor, keep: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Integers of rows (R, n) from the first column to the last.

    `factors` (R or 1, n, n) are upper, U' U = H^-1: its row i over U_ii is the column of what is
    left of the inverse when i comes, over its diagonal.
    """
    weights, found = weights.clone(), torch.zeros_like(weights)
    for place in range(weights.shape[1]):
        held = weights[:, place : place + 1]
        nearest = round_to_grid(held, scales, bits) * keep[:, place : place + 1]
        found[:, place : place + 1] = nearest
        row = factors[:, place, place:]
        weights[:, place:] -= (held - nearest * scales) * row / row[:, :1]
    return found
