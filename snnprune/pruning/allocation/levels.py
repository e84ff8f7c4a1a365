"""Allocations that give every weight a level, rising as its layer empties; the lowest levels go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.network import Layer, Network
from snnprune.masks import select_lowest
from snnprune.measure.calibration import Calibration, LayerStatistics
from snnprune.pruning.allocation.candidates import Candidates
from snnprune.pruning.criteria.criterion import Evidence
from snnprune.pruning.criteria.spiking import compute_flip_energy


def compute_flip_energies(
    weights: Mapping[str, Tensor], network: Network, calibration: Calibration
) -> dict[str, Tensor]:
    """`compute_flip_energy` of each layer of which it is known what it does to spikes, by weight
    key.

    Linear layers without BatchNorm and the encoding layer are among them.

    Raises:
        InputError: the calibration is of a version that did not take what this needs.
    """
    return {
        key: compute_flip_energy(
            Evidence(
                weight=_get_applied_weight(weight, network.layers[key], calibration.layers[key]),
                key=key,
                groups=network.layers[key].groups,
                statistics=calibration.layers[key],
            )
        )
        for key, weight in weights.items()
        if key in calibration.layers and calibration.layers[key].drives
    }


def find_weight_indices(network: Network) -> dict[str, Tensor]:
    """Where each value of a parameter is in its weight, flat, of those that lie otherwise."""
    places = {}
    for key, layer in network.layers.items():
        if layer.layout is not None:
            count = torch.Size(layer.shape).numel()
            places[key] = layer.parameter_of(torch.arange(count).view(layer.shape)).flatten()
    return places


def _get_applied_weight(held: Tensor, layer: Layer, statistics: LayerStatistics) -> Tensor:
    """The weight (out, in / groups, *kernel) that the network applies."""
    return layer.weight_of(held) if statistics.weight is None else statistics.weight


def compute_flip_levels(energies: Tensor, queue: Tensor) -> Tensor:
    """The predicted share of flipped spikes as the places of `queue` go one by one, (n,) float64.

    `energies` (out, ...) are e_ij; of each output the root of the sum of those gone, then the mean.
    `queue` (n,) are flat places, each once.
    """
    outputs = len(energies)
    channel = queue // energies[0].numel()
    counts = channel.bincount(minlength=outputs)
    # a row for each output, so that sums of one do not round those of another
    by_channel = channel.argsort(stable=True)
    row = channel[by_channel]
    column = torch.arange(len(queue), device=queue.device) - (counts.cumsum(0) - counts)[row]
    gone = torch.zeros(outputs, int(counts.max()) + 1, dtype=torch.float64, device=queue.device)
    gone[row, column + 1] = energies.flatten().double()[queue[by_channel]]
    steps = torch.empty(len(queue), dtype=torch.float64, device=queue.device)
    steps[by_channel] = gone.cumsum(1).sqrt().diff(dim=1)[row, column]
    return steps.cumsum(0) / outputs


Queues = Mapping[str, Tensor]
"""By layer, the flat places of what is alive in the order in which it goes, (n,) int64."""


def prune_by_lamp(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """One ranking of s_u^2 / (sum of s_v^2 over all v of the layer that do not go before u).

    Lee et al. 2021, arXiv 2010.07611, with any score s that grows as |w|: the square root
    of one that grows as w^2. What goes last in a layer has 1, so no layer is emptied while another
    has more than one weight. Scores below 0 count as 0.
    """
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    taken = _count_by_lamp(candidates, queues, _count_remaining(candidates, count))
    return _make_masks(candidates, queues, taken)


def prune_by_lamp_of_magnitudes(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """From each layer as many as `lamp` would take by magnitude; which ones, the scores say.

    For scores that know what a weight is worth within its layer, and not what layers are worth.
    """
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    by_size = replace(
        candidates,
        scores={
            key: size.double().masked_fill(~candidates.kept(key), -torch.inf)
            for key, size in candidates.magnitudes.items()
        },
        by_magnitude=frozenset(),
        scale="linear",
        degree=1,
    )
    order = {key: by_size.order_alive(key) for key in candidates.keys}
    taken = _count_by_lamp(by_size, order, _count_remaining(candidates, count))
    return _make_masks(candidates, queues, taken)


def prune_by_flips(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """As much from each layer as lets equally many of the spikes behind it flip; snnprune's own.

    The share of spikes of channel j that flip is predicted to be sqrt(sum of e_ij over the pruned
    i), a layer's the mean over its channels; see `compute_flip_energy`. Layers of
    which nothing is known, as the last, lose what `lamp` over all layers would take from them.
    """
    if not candidates.flips:
        raise InputError(
            "flips needs statistics of spikes",
            field="--allocation",
            hint="give --model and --data, or choose lamp",
        )
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    known = {key: queues[key] for key in candidates.keys if key in candidates.flips}
    left = _count_remaining(candidates, count)
    by_lamp = _count_by_lamp(candidates, queues, left) if len(known) < len(queues) else {}
    outside = {key: by_lamp[key] for key in queues if key not in known}
    levels = {
        key: compute_flip_levels(candidates.flips[key], candidates.map_to_weight(key, queue))
        for key, queue in known.items()
    }
    taken = _count_lowest_levels(candidates, known, levels, left - sum(outside.values()))
    return _make_masks(candidates, queues, {**outside, **taken})


def compute_lamp_levels(energies: Tensor) -> Tensor:
    """log of e_u / (e_u + e_u+1 + ...) of rising log energies (n,), 0 for the last."""
    rest = energies.flip(0).logcumsumexp(0).flip(0)
    levels = energies - rest
    levels[energies == -torch.inf] = -torch.inf
    levels[energies == torch.inf] = 0
    levels[-1:] = 0
    return levels


def _count_remaining(candidates: Candidates, count: int) -> int:
    """How many are to go beside what is pruned already."""
    return max(0, count - candidates.zeros(candidates.keys))


def _count_by_lamp(candidates: Candidates, queues: Queues, count: int) -> dict[str, int]:
    levels = {
        key: compute_lamp_levels(_compute_log_energies(candidates, key)[queue])
        for key, queue in queues.items()
    }
    return _count_lowest_levels(candidates, queues, levels, count)


def _compute_log_energies(candidates: Candidates, key: str) -> Tensor:
    """log of what grows as w^2, flat, float64."""
    scores = candidates.scores[key].flatten().double()
    logs = scores if candidates.scale == "log" else scores.clamp(min=0).log()
    return logs * (2 / (1 if key in candidates.by_magnitude else candidates.degree))


def _count_lowest_levels(
    candidates: Candidates, queues: Queues, levels: Mapping[str, Tensor], count: int
) -> dict[str, int]:
    """How many of each layer are among the `count` lowest levels; equals by magnitude."""
    if not queues:
        return {}
    sizes = [candidates.magnitudes[key].flatten()[queue] for key, queue in queues.items()]
    chosen = select_lowest(
        torch.cat([levels[key] for key in queues]), count, ties_by=torch.cat(sizes)
    )
    pieces = chosen.split([len(queue) for queue in queues.values()])
    return {key: int(piece.sum()) for key, piece in zip(queues, pieces, strict=True)}


def _make_masks(
    candidates: Candidates, queues: Queues, taken: Mapping[str, int]
) -> dict[str, Tensor]:
    return {key: candidates.without(key, queue[: taken[key]]) for key, queue in queues.items()}
