"""A module, which of its weights drives which of its neurons, and how it is run and read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnprune.data.batches import Pair, count_samples
from snnprune.graph.forward import (
    Batch,
    CountedForward,
    Forward,
    OutputReader,
    Reading,
    Readout,
    call_module,
    feed_batches,
)
from snnprune.graph.libraries import reset_states
from snnprune.graph.libraries.library import NeuronConstants, NeuronLibrary
from snnprune.graph.state import keep_state


@dataclass(frozen=True, kw_only=True)
class Layout:
    """From a tensor in the form of a parameter to a weight (out, in / groups, *kernel), and back.

    The parameter is looked at in the shape `view`, its dimensions are put in `order`, and what
    comes of that is a weight of `shape`. No value changes, so that masks and scores go the same
    way.
    """

    held: tuple[int, ...]
    """Shape of the parameter."""
    view: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]
    """Of the weight."""

    @classmethod
    def of(cls, shape: Sequence[int]) -> Layout:
        """Of a parameter of that shape that is the weight itself."""
        same = tuple(shape)
        return cls(held=same, view=same, order=tuple(range(len(same))), shape=same)

    @property
    def is_plain(self) -> bool:
        """Whether the parameter is the weight as it lies."""
        return self.held == self.shape and self.in_order

    @property
    def in_order(self) -> bool:
        """Whether no dimension changes places."""
        return self.order == tuple(range(len(self.order)))

    def weight(self, held: Tensor) -> Tensor:
        """The weight (out, in / groups, *kernel) of a tensor in the form of the parameter."""
        if self.is_plain:
            return held
        return held.reshape(self.view).permute(self.order).reshape(self.shape)

    def back(self, weight: Tensor) -> Tensor:
        """What is in the form of the weight, in that of the parameter."""
        if self.is_plain:
            return weight
        seen = [self.view[place] for place in self.order]
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return weight.reshape(seen).permute(inverse).reshape(self.held)

    def chain(self, other: Layout) -> Layout | None:
        """Both one after the other; None where no view and order says it."""
        if self.in_order:
            return Layout(held=self.held, view=other.view, order=other.order, shape=other.shape)
        if other.view != tuple(self.view[place] for place in self.order):
            return None
        order = tuple(self.order[place] for place in other.order)
        return Layout(held=self.held, view=self.view, order=order, shape=other.shape)


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

    def is_moved_to(self, neuron: str) -> bool:
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


def find_aliases(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """For each tensor of the state dict, by key, all keys that hold it; the first leads."""
    held = module.state_dict(keep_vars=True)
    together: dict[int, list[str]] = {}
    for key, tensor in held.items():
        if isinstance(tensor, Tensor):  # else what get_extra_state gives
            together.setdefault(id(tensor), []).append(key)
    return {key: tuple(keys) for keys in together.values() for key in keys}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module and its links. Nothing in it changes the module."""

    module: nn.Module
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """By weight key, in the order in which data meets them."""
    neurons: Mapping[str, Neuron] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    """Neurons whose spikes are put out past every layer."""
    made: Mapping[str, str] = field(default_factory=dict)
    """Weights that are made of other parameters as a whole, as by weight norm: by what."""
    kept: tuple[str, ...] = ()
    """Parameters that weights are made with and that are no weights, as positions and delays."""
    restless: Mapping[str, str] = field(default_factory=dict)
    """Modules that do in eval mode as in training, and what: see `graph.calls`."""
    draws: int | None = None
    """The seed of what it draws at random in eval mode; None where it draws nothing."""
    settled: TraceSettings = field(default_factory=TraceSettings)
    """What a pass has to know to see all of this again."""
    forward: Forward = call_module
    """How a batch is run: from the module and what is fed to it to the output."""
    readout: Readout = field(default_factory=Readout)
    """How its output is read."""

    def weight(self, key: str) -> Tensor:
        """The weight of a layer, (out, in / groups, *kernel)."""
        return self.module.get_parameter(key).detach()

    def find_tied(self, key: str) -> list[str]:
        """Every state-dict key that holds the same parameter as `key`, itself included."""
        parameter = self.module.get_parameter(key)
        named = self.module.named_parameters(remove_duplicate=False)
        return [name for name, other in named if other is parameter]

    def feed(self, batches: Iterable[Batch]) -> Iterator[Pair]:
        """Each batch as `run` takes it; see `graph.forward.feed_batches`.

        Raises:
            InputError: a batch has no tensor, NaN or infinity, or labels that do not fit.
        """
        return feed_batches(batches, self.module)

    def run(self, x: Any) -> Any:
        """The output for what is fed, from the state that the module is in."""
        return self.forward(self.module, x)

    def count_samples(self, x: Any, y: Tensor | None) -> int:
        """The number of samples in a batch, by the labels where there are some.

        Events have time first. The way in which it is run may tell where the samples lie.

        Raises:
            InputError: it cannot be told, or does not fit the way it is run.
        """
        if isinstance(self.forward, CountedForward):
            return self.forward.samples(x, y)
        return count_samples(x, y)

    @property
    def sample_axis(self) -> int | None:
        """Where the samples of every batch x lie; None where it is to be seen by the labels."""
        how = self.forward
        return how.axis if isinstance(how, CountedForward) and how.always else None

    def new_reader(self) -> OutputReader:
        """A reader of the outputs of one pass."""
        return OutputReader(self.readout)

    def reset(self) -> None:
        """Put what has a state at rest, as far as it is of a known library."""
        reset_states(self.module)

    @contextlib.contextmanager
    def reset_between_batches(self) -> Iterator[Callable[[], None]]:
        """Gives the function that puts everything at rest, to be called before each batch.

        Neurons of known libraries are reset as these do it. A user's own neuron keeps its membrane
        in an attribute or a buffer, or in a list, dict or object there, and nobody can know which:
        all of them are put back as they were when the block began, also when it ends.
        """
        self.reset()  # before the look: a membrane of an earlier batch is no state of rest
        restore = keep_state(self.module, self.restless)

        def reset() -> None:
            self.reset()
            restore()

        try:
            yield reset
        finally:
            reset()

    def with_forward(self, forward: Forward | None) -> Network:
        """The same, run in that way; as it is where none is given."""
        return self if forward is None else replace(self, forward=forward)

    def with_readout(self, readout: str | Reading | Readout | None) -> Network:
        """The same, its output read in that way; as it is where none is given.

        Raises:
            UsageError: there is no readout of that name.
        """
        if readout is None:
            return self
        how = readout if isinstance(readout, Readout) else Readout(readout)
        return replace(self, readout=how)


def find_bias_key(network: Network, key: str) -> str | None:
    """The key of the bias of a layer, where it has one beside its weight."""
    name = f"{key.removesuffix('weight')}bias"
    return name if name in dict(network.module.named_parameters()) else None


def compute_norm_gain(network: Network, key: str) -> Tensor:
    """What BatchNorm multiplies each output channel of a layer by in eval mode, (out,) float64.

    On the way to the first neuron that it drives; at the first time step, where each has its own.
    1 where nothing normalises, or where nobody knows the formula.
    """
    layer, state = network.layers[key], network.module.state_dict()
    gain = torch.ones(layer.shape[0], dtype=torch.float64, device=network.weight(key).device)
    for norm in layer.links[0].norms[0] if layer.links else ():
        if norm.eps is not None:
            scale = 1.0 if norm.scale is None else state[norm.scale].double()
            gain = gain * scale / (state[norm.variance].double() + norm.eps).sqrt()
    return gain
