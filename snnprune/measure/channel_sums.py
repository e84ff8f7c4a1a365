"""Channels of spikes and membranes: where they lie, and the sums that a pass keeps of each.

Sums alone are kept of a calibration pass, never activations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar, get_args

import torch
from torch import Tensor

from snnprune.graph.network import NOWHERE, Layer, Network
from snnprune.measure import InputValues

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


BLOCK = 2**20  # elements


def reshape_to_blocks(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """`x` as blocks (A, C, S), C its axis `axis` (from the end)."""
    before, after = x.shape[:axis], x.shape[axis:][1:]
    whole = x.reshape(before.numel(), x.shape[axis], after.numel())
    if whole.shape[2] == 1 or x.is_cuda:  # nothing to gain
        return (whole,)
    return whole.split(max(1, BLOCK // max(1, whole[0].numel())))


class ChannelMoments:
    """Mean and variance per channel, merged block by block (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())  # sum of squared distances to the mean

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values."""
        inner = block.shape[2]
        if inner == 1:
            squares, mean = torch.var_mean(block.double(), dim=(0, 2), correction=0)
            self._take(block.shape[0], mean, squares * block.shape[0])
            return
        # each row by its own mean first: distances to it lose nothing in float32
        means = block.mean(2, keepdim=True)
        within = torch.linalg.vector_norm(block - means, dim=2).double().square_()
        means = means.squeeze(2).double()
        mean = means.mean(0)
        squares = within.sum(0) + inner * (means - mean).square_().sum(0)
        self._take(block.shape[0] * inner, mean, squares)

    def merge(self, other: ChannelMoments) -> None:
        """Take in what another has taken in."""
        self._take(other.count, other.mean, other.squares)

    def _take(self, count: int, mean: Tensor, squares: Tensor) -> None:
        """Take in `count` values per channel with that mean and sum of squared distances, (C,)."""
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.count = total

    def compute_variance(self) -> Tensor:
        """Population variance, (C,)."""
        return self.squares / self.count


class StepMoments:
    """Moments per channel, by the time step at which the values came."""

    def __init__(self) -> None:
        self.steps: list[ChannelMoments] = []

    def at(self, step: int) -> ChannelMoments:
        """Those of one step."""
        self.steps += [ChannelMoments() for _ in range(step + 1 - len(self.steps))]
        return self.steps[step]

    def merge(self, other: StepMoments) -> None:
        """Take in what another has taken in."""
        for step, moments in enumerate(other.steps):
            self.at(step).merge(moments)

    def together(self) -> ChannelMoments:
        """Those of all steps."""
        whole = ChannelMoments()
        for moments in self.steps:
            whole.merge(moments)
        return whole

    def compute_mean(self) -> Tensor:
        """(T, C)."""
        return torch.stack([moments.mean for moments in self.steps])

    def compute_variance(self) -> Tensor:
        """(T, C), each about its own step's mean."""
        return torch.stack([moments.compute_variance() for moments in self.steps])


class ChannelHistogram:
    """Counts per channel between fixed edges, with one bin on either side for the rest."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high, self.bins = low, high, bins
        self.scale = bins / (high - low)
        self.shift = 1 - low * self.scale  # with one for the bin below all others
        self.counts = torch.zeros((), dtype=torch.int64)

    def compute_edges(self) -> Tensor:
        """(bins + 1,) float64."""
        return torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values; a bin holds its lower edge."""
        channels, width = block.shape[1], self.bins + 2
        # what is positive is cut down by the change of type
        position = block.mul(self.scale).add_(self.shift).clamp_(0, self.bins + 1)
        row = torch.arange(channels, device=block.device, dtype=torch.int32).mul_(width)
        index = position.to(torch.int32).add_(row.view(1, -1, 1)).flatten()
        counts = torch.bincount(index, minlength=channels * width).view(channels, width)
        self.counts = self.counts.to(block.device) + counts

    def merge(self, other: ChannelHistogram) -> None:
        """Take in what another has counted between the same edges."""
        self.counts = self.counts + other.counts


KINDS: tuple[InputValues, ...] = get_args(InputValues)  # each takes in those before it


class ChannelMean:
    """Means of values, of their absolutes and squares per channel, and what kind they are."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = torch.zeros(3, 1, dtype=torch.float64)  # of |x|, x, x^2
        self.values: InputValues = "binary"

    def add(self, block: Tensor) -> None:
        """Take in (A, C, S) values."""
        self.values = _merge_kind(block, self.values)
        self._take(_compute_power_sums(block, self.values), block.shape[0] * block.shape[2])

    def add_ones(self, ones: Tensor, count: int) -> None:
        """Take in `count` values of each channel, of which so many are 1, (C,), and others 0."""
        self._take((ones.double(),) * 3, count)

    def _take(self, sums: tuple[Tensor, Tensor, Tensor], count: int) -> None:
        self.sums = self.sums.to(sums[0].device) + torch.stack(sums)
        self.count += count

    def merge(self, other: ChannelMean) -> None:
        """Take in what another has taken in."""
        self.values = max(self.values, other.values, key=KINDS.index)
        self.sums = self.sums + other.sums
        self.count += other.count

    def compute_mean(self) -> Tensor:
        """Of |x|, (C,) float64."""
        return self.sums[0] / self.count

    def compute_signed_mean(self) -> Tensor:
        """Of x, (C,) float64."""
        return self.sums[1] / self.count

    def compute_mean_square(self) -> Tensor:
        """Of x^2, (C,) float64."""
        return self.sums[2] / self.count


def _compute_power_sums(block: Tensor, kind: InputValues) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of |x|, x and x^2 over (A, C, S) values of that kind, each (C,) float64."""
    total = block.sum(2).sum(0, dtype=torch.float64)
    if kind == "binary":
        return total, total, total
    square = torch.linalg.vector_norm(block, dim=2).double().square().sum(0)
    size = total if kind == "counts" else block.abs().sum(2).sum(0, dtype=torch.float64)
    return size, total, square


def _merge_kind(values: Tensor, known: InputValues) -> InputValues:
    """The kind of all values so far; once it is analog it stays so."""
    if known == "analog":
        return known
    if known == "binary" and torch.equal(values * values, values):
        return "binary"
    whole = bool(((values == values.floor()) & (values >= 0)).all())
    return "counts" if whole else "analog"


HISTOGRAM = (-4.0, 4.0, 128)  # u - u_th from, to, bins


class CalibrationSums:
    """By weight key, neuron name or key of a running variance; equal however the pass is cut."""

    def __init__(self) -> None:
        self.inputs: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.membranes: dict[str, StepMoments] = defaultdict(StepMoments)
        self.histograms: dict[str, ChannelHistogram] = defaultdict(
            partial(ChannelHistogram, *HISTOGRAM)
        )
        self.spikes: dict[str, ChannelMean] = defaultdict(ChannelMean)
        self.factors: dict[str, Tensor] = {}
        """Of normalisations, (C,) float64."""
        self.weights: dict[str, Tensor] = {}
        """Weights that functions make, by the key of their parameter."""
        self.refused: dict[str, str] = {}
        """Why a neuron has no statistics."""
        self.samples = self.batches = self.steps = 0
        self.lengths: set[int] = set()
        """Time steps of the batches, as far as their shapes tell."""

    def merge(self, other: CalibrationSums) -> None:
        """Take in what another pass has seen of the same network."""
        _merge(self.inputs, other.inputs)
        _merge(self.membranes, other.membranes)
        _merge(self.histograms, other.histograms)
        _merge(self.spikes, other.spikes)
        self.factors.update((k, v) for k, v in other.factors.items() if k not in self.factors)
        self.weights = other.weights | self.weights
        self.refused.update((k, v) for k, v in other.refused.items() if k not in self.refused)
        self.samples += other.samples
        self.batches += other.batches
        self.steps += other.steps
        self.lengths |= other.lengths


class _Mergeable(Protocol):
    def merge(self, other: Self, /) -> None: ...


M = TypeVar("M", bound=_Mergeable)


def _merge(into: dict[str, M], others: Mapping[str, M]) -> None:
    for name, other in others.items():
        into[name].merge(other)
