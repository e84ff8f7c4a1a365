"""The links of a network: which layer feeds, through which normalisation, which spiking neuron."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from snnprune.graph.layout import Layout
from snnprune.graph.libraries.library import NeuronConstants, NeuronLibrary

LayerKind = Literal[
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
]

# Counted from the end, so that any number of time and batch dimensions may come first.
CHANNEL_AXIS: dict[LayerKind, int] = {
    "conv1d": -2,
    "conv2d": -3,
    "conv3d": -4,
    "conv_transpose1d": -2,
    "conv_transpose2d": -3,
    "conv_transpose3d": -4,
    "linear": -1,
}

NOWHERE = 1  # in place of an axis: the channels lie along no single dimension


@dataclass(frozen=True, kw_only=True)
class Norm:
    """One batch normalisation, by the state-dict keys of its tensors; `eps` is its own."""

    scale: str | None
    variance: str
    eps: float | None
    """None where no `batch_norm` is called and the module computes by hand."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gain:
    """A constant factor on the way of a current."""

    value: Tensor | float
    """A number, a parameter itself, or a tensor as it was when the network was traced."""
    divides: bool = False


@dataclass(frozen=True, kw_only=True)
class Link:
    """A layer's way to a spiking neuron that it drives."""

    neuron: str
    norms: tuple[tuple[Norm, ...], ...] = ((),)
    """What normalises on the way: one chain, or several where time steps have their own."""
    gains: tuple[Gain, ...] = ()
    """What it is multiplied by on the way besides."""
    through: tuple[str, ...] = ()
    """The other operations on the way, views left out."""
    obstacle: str | None = None
    """An operation on the way that no factor per channel describes."""
    moved: bool = False
    """Whether dimensions change places on the way."""
    beside: bool = False
    """Whether what other layers make is laid beside it on the way."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A prunable weight and its ways to the spikes that it drives."""

    weight: str
    """Key of the weight in the state dict."""
    kind: LayerKind
    shape: tuple[int, ...]
    """(out, in / groups, *kernel)"""
    groups: int = 1
    encoding: bool
    """Fed by the network's input through no spiking neuron."""
    links: tuple[Link, ...] = ()
    """One for each neuron that it drives; several behind a residual sum of currents."""
    sources: tuple[str, ...] = ()
    """Neurons whose spikes enter it past every other layer."""
    side_by_side: bool = False
    """Whether spikes of several of these neurons are laid side by side in it, and not added."""
    layout: Layout | None = None
    """How the parameter lies to the weight, where it is not the weight as it lies."""
    unseen: str | None = None
    """Why nothing is known of it but the weight, where that is so."""
    current_axis: int = -1
    """Where what its call gives has its channels, from the end."""
    shaped: bool = False
    """Whether the network applies an elementwise function with f(0) = 0 to the parameter."""

    def weight_of(self, held: Tensor) -> Tensor:
        """The weight (out, in / groups, *kernel) of a tensor in the form of the parameter."""
        return held if self.layout is None else self.layout.weight(held)

    def parameter_of(self, weight: Tensor) -> Tensor:
        """What is in the form of the weight, in the form of the parameter."""
        return weight if self.layout is None else self.layout.back(weight)

    @property
    def channel_axis(self) -> int:
        """Where the channels are in its input, its output and mostly in the neuron after it."""
        return CHANNEL_AXIS[self.kind]

    @property
    def normalised(self) -> bool:
        """Whether a BatchNorm stands between it and a neuron."""
        return any(chain for link in self.links for chain in link.norms)

    def moved_to(self, neuron: str) -> bool:
        """Whether dimensions change places on its way to that neuron."""
        return any(link.moved for link in self.links if link.neuron == neuron)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A spiking neuron of the network."""

    name: str
    """Of its module; where no module is a neuron, the module and the layers before it."""
    module: nn.Module
    """The neuron, or for one that is a comparison in somebody's code the module around it."""
    library: NeuronLibrary
    constants: NeuronConstants
    feeders: tuple[str, ...] = ()
    """Weights of the layers that drive it."""
    identities: tuple[str, ...] = ()
    """Neurons whose spikes reach it past every layer, as in a residual block."""
    sites: tuple[int, ...] = ()
    """Which comparisons of a pass it is, where it is no module of a known library."""
    axis: int | None = None
    """Where its membrane has the channels of the layers before it, from the end; NOWHERE if in no
    single dimension, None if nobody can say."""
    gated: bool = False
    """Whether something else decides with the comparison whether it spikes."""


@dataclass(frozen=True, kw_only=True)
class TraceSettings:
    """What a pass has found out that the next one has to know."""

    functions: frozenset[str] = frozenset()
    """Parameters that the network applies an elementwise function with f(0) = 0 to."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """How a parameter lies to the weight that counts, where it is used in several ways."""
    scalings: Mapping[int, int] = field(default_factory=dict)
    """How many factors of what is compared are its own, by comparison of a pass."""
    layers: frozenset[str] = frozenset()
    """Keys of all weights that are layers', so that they are known while nothing is fed yet."""
    resting: frozenset[int] = frozenset()
    """Comparisons that are alone at their place, so that steps before any input are theirs."""
