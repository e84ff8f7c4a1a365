"""The links of a network: which layer feeds, through which normalisation, which spiking neuron."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from snnprune.network.libraries.library import NeuronConstants, NeuronLibrary

LayerKind = Literal["conv1d", "conv2d", "conv3d", "linear"]

# Counted from the end, so that any number of time and batch dimensions may come first.
CHANNEL_AXIS: dict[LayerKind, int] = {"conv1d": -2, "conv2d": -3, "conv3d": -4, "linear": -1}


@dataclass(frozen=True, kw_only=True)
class Norm:
    """One batch normalisation, by the state-dict keys of its tensors; `eps` is its own."""

    scale: str | None
    variance: str
    eps: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A prunable weight and its way to the spikes that it drives."""

    weight: str
    """Key of the weight in the state dict."""
    kind: LayerKind
    shape: tuple[int, ...]
    """(out, in / groups, *kernel)"""
    groups: int = 1
    encoding: bool
    """Fed by the network's input through no spiking neuron."""
    norms: tuple[Norm, ...] = ()
    """What normalises its output before the neuron."""
    neuron: str | None = None
    """Name of the spiking neuron module that it drives, if it drives one."""
    through: tuple[str, ...] = ()
    """The other operations on the way to the neuron, views left out."""

    @property
    def channel_axis(self) -> int:
        """Where the channels are in its input, its output and the neuron after it."""
        return CHANNEL_AXIS[self.kind]


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A spiking neuron module of the network."""

    name: str
    module: nn.Module
    library: NeuronLibrary
    constants: NeuronConstants
    feeders: tuple[str, ...] = ()
    """Weights of the layers that drive it."""
    identities: tuple[str, ...] = ()
    """Neurons whose spikes reach it past every layer, as in a residual block."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module and its links. Nothing in it changes the module."""

    module: nn.Module
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """By weight key, in the order in which data meets them."""
    neurons: Mapping[str, Neuron] = field(default_factory=dict)

    def weight(self, key: str) -> Tensor:
        """The weight of a layer, (out, in / groups, *kernel)."""
        return self.module.get_parameter(key).detach()

    def tied(self, key: str) -> list[str]:
        """Every state-dict key that holds the same parameter as `key`, itself included."""
        parameter = self.module.get_parameter(key)
        named = self.module.named_parameters(remove_duplicate=False)
        return [name for name, other in named if other is parameter]

    def reset(self) -> None:
        """Put every neuron at rest: before each batch, or the last one leaks into it."""
        for neuron in self.neurons.values():
            neuron.library.reset(neuron.module)
