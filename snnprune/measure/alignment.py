"""How the dimensions of spikes and membranes lie to each other and to a layer's channels."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from snnprune.graph.network import NOWHERE, Layer, Network

ONE_CHANNEL = 0  # no axis: all values are of one channel


def align_spikes(spikes: Tensor, fires: Tensor) -> Tensor | None:
    """A neuron's spikes in the layout of `fires`, (T, N, ...), where they are what it says.

    Spikes may be counted, and may come as (T, N, ...), (N, T, ...) or with both dimensions in one.
    None where the spikes are not those that follow from the membrane.
    """
    if spikes.numel() != fires.numel():
        return None
    return next((one for one in _iter_layouts(spikes, fires) if torch.equal(one != 0, fires)), None)


def reshape_time_first(spikes: Tensor, shape: Sequence[int], *, samples_first: bool) -> Tensor:
    """What came with time, or with the samples, first, as `shape` (T, N, ...)."""
    if not samples_first:
        return spikes.reshape(*shape)
    steps, samples, *rest = shape
    return spikes.reshape(samples, steps, *rest).transpose(0, 1)


def _iter_layouts(spikes: Tensor, fires: Tensor) -> Iterator[Tensor]:
    """`spikes` in the shape of `fires`, with time or the batch first."""
    yield reshape_time_first(spikes, fires.shape, samples_first=False)
    if fires.dim() > 1 and len(fires) > 1:
        yield reshape_time_first(spikes, fires.shape, samples_first=True)


def find_membrane_axis(layer: Layer, shape: torch.Size, *, moved: bool = False) -> int | None:
    """Where the channels of `layer` are in a membrane (T, N, ...), or None if that is not sure.

    As in the layer's output; where flattening or a `moved` dimension has put them elsewhere, at the
    only place of the right size.
    """
    places = [axis for axis in range(2 - len(shape), 0) if shape[axis] == layer.shape[0]]
    if not moved and len(shape) >= 2 - layer.channel_axis:
        return layer.channel_axis if layer.channel_axis in places else None
    return places[0] if len(places) == 1 else None


def find_channel_axis(network: Network, neuron: str, shape: torch.Size) -> int | None:
    """Where the channels of a neuron are in (T, N, ...), from the end; None if nobody can say.

    ONE_CHANNEL for a neuron that no layer drives.
    """
    layers = [network.layers[key] for key in network.neurons[neuron].feeders]
    if not layers:
        return ONE_CHANNEL
    known = network.neurons[neuron].axis  # as the channels were followed from the layers
    if known == NOWHERE:
        return None
    if known is not None and 1 - len(shape) <= known < 0:  # past what comes first, as time
        fits = any(shape[known] == layer.shape[0] for layer in layers)
        return known if fits else _find_axis_by_shape(neuron, layers, shape)
    return _find_axis_by_shape(neuron, layers, shape)


def _find_axis_by_shape(neuron: str, layers: list[Layer], shape: torch.Size) -> int | None:
    # a layer of other outputs, such as one between all places, does not say
    axes = {
        axis
        for layer in layers
        if (axis := find_membrane_axis(layer, shape, moved=layer.is_moved_to(neuron)))
    }
    return axes.pop() if len(axes) == 1 else None
