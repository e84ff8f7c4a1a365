"""What a network needs of a chip, layer by layer; pure numbers. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from snnprune.measure import Natural


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of spikes on their way to a layer."""

    kind: str
    """average or max."""
    sides: tuple[Natural, ...]
    strides: tuple[Natural, ...]


@dataclass(frozen=True, kw_only=True)
class LayerNeuron:
    """The neuron that a layer drives."""

    name: str
    kind: str
    """if, lif, or what it is called where it is neither."""
    decay: float | None
    """The share of the membrane that is kept at each step; None where it is no number."""
    reset: str | None
    """zero or subtract; None where it is another, or nobody knows."""


@dataclass(frozen=True, kw_only=True)
class LayerNeeds:
    """A layer as a chip would have to hold it; BatchNorm is taken as folded into it."""

    layer: str
    """Key of its weight."""
    kind: str
    inputs: Natural
    """Channels that enter it; behind a flattening those of the layer before."""
    outputs: Natural
    """Channels that leave it."""
    kernel: tuple[Natural, ...]
    """Sides; of a linear layer behind a flattening the places that were flattened, () if one."""
    input_size: tuple[Natural, ...]
    """Sides of what enters, () of a linear layer."""
    size: tuple[Natural, ...]
    """Sides of what leaves, () of a linear layer."""
    groups: Natural = 1
    stride: tuple[Natural, ...] = ()
    padding: tuple[Natural, ...] = ()
    dilation: tuple[Natural, ...] = ()
    bias: bool
    """Whether it has one, once BatchNorm is folded."""
    alive: Natural
    """Weights that are not 0."""
    connections: Natural
    """The same for each place that they are used at."""
    fan_in: Natural
    """Weights that are not 0, of the output channel that has most."""
    bits: Natural | None
    """The fewest bits that its weights are integers of, with one scale for the layer; else None."""
    channel_bits: Natural | None
    """Likewise with a scale for each output channel."""
    neurons: tuple[LayerNeuron, ...] = ()
    """What it drives; nothing where its currents are read out."""
    pools: tuple[Pool, ...] = ()
    """Before it."""
    sources: tuple[str, ...] = ()
    """Layers whose spikes enter it."""
    beside: tuple[str, ...] = ()
    """Other layers whose currents or spikes reach the same neuron."""
    obstacles: tuple[str, ...] = ()
    """What stands on its ways that no chip folds, in words."""
    group: str | None = None
    """The channels that it makes, by the first layer that makes them; None where they must stay."""
    reads: str | None = None
    """The channels that enter it, likewise."""
    whole_inputs: bool = True
    """Whether whole numbers enter it, as events and spikes are."""

    @property
    def places(self) -> int:
        """Where one output channel has a neuron."""
        return math.prod(self.size)

    @property
    def neuron_count(self) -> int:
        """Neurons of all channels and places."""
        return self.outputs * self.places

    @property
    def input_count(self) -> int:
        """Values that enter it at a step."""
        return self.inputs * math.prod(self.input_size or self.kernel)

    @property
    def biases(self) -> int:
        """One for each output channel, where it has any."""
        return self.outputs if self.bias else 0

    @property
    def folded(self) -> str:
        """What is held for it, in short."""
        sides = "x".join(map(str, self.kernel)) or "1"
        return f"{self.inputs} -> {self.outputs}, {sides}"


def change_channels(
    needs: Sequence[LayerNeeds], channels: Mapping[str, int]
) -> tuple[LayerNeeds, ...]:
    """The needs with so many channels in each group of `channels`; zeros stay as frequent."""
    return tuple(_resize(one, channels) for one in needs)


def _resize(one: LayerNeeds, channels: Mapping[str, int]) -> LayerNeeds:
    outputs = one.outputs if one.group is None else channels.get(one.group, one.outputs)
    inputs = one.inputs if one.reads is None else channels.get(one.reads, one.inputs)
    if (outputs, inputs) == (one.outputs, one.inputs):
        return one
    share = outputs * inputs / (one.outputs * one.inputs)
    return replace(
        one,
        outputs=outputs,
        inputs=inputs,
        alive=math.ceil(share * one.alive),
        connections=math.ceil(share * one.connections),
        fan_in=math.ceil(inputs / one.inputs * one.fan_in),
    )


def thin_out(needs: Sequence[LayerNeeds], density: float) -> tuple[LayerNeeds, ...]:
    """The needs with that share of the weights that are alive, the same in each layer.

    Which are left is open: their connections are the most that so many may have.
    """
    return tuple(_thin(one, math.floor(density * one.alive)) for one in needs)


def _thin(one: LayerNeeds, alive: int) -> LayerNeeds:
    return replace(
        one,
        alive=alive,
        connections=min(one.connections, alive * one.places),
        fan_in=min(one.fan_in, alive),
    )
