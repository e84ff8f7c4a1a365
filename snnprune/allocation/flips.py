"""How many spikes are predicted to flip as a layer loses its weights one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from snnprune.calibration import Calibration, LayerStatistics
from snnprune.criteria import Evidence
from snnprune.criteria.spiking import predicted_flips
from snnprune.network import Layer, Network


def flip_energies(
    weights: Mapping[str, Tensor], network: Network, calibration: Calibration
) -> dict[str, Tensor]:
    """`predicted_flips` of each layer of which it is known what it does to spikes, by weight key.

    Linear layers without BatchNorm and the encoding layer are among them.

    Raises:
        InputError: the calibration is of a version that did not take what this needs.
    """
    return {
        key: predicted_flips(
            Evidence(
                weight=_applied(weight, network.layers[key], calibration.layers[key]),
                key=key,
                groups=network.layers[key].groups,
                statistics=calibration.layers[key],
            )
        )
        for key, weight in weights.items()
        if key in calibration.layers and calibration.layers[key].drives
    }


def places_in_weight(network: Network) -> dict[str, Tensor]:
    """Where each value of a parameter is in its weight, flat, of those that lie otherwise."""
    places = {}
    for key, layer in network.layers.items():
        if layer.layout is not None:
            count = torch.Size(layer.shape).numel()
            places[key] = layer.parameter_of(torch.arange(count).view(layer.shape)).flatten()
    return places


def _applied(held: Tensor, layer: Layer, statistics: LayerStatistics) -> Tensor:
    """The weight (out, in / groups, *kernel) that the network applies."""
    return layer.weight_of(held) if statistics.weight is None else statistics.weight


def flip_levels(energies: Tensor, queue: Tensor) -> Tensor:
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
