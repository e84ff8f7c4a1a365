"""Where a tensor came from: a note that tensors carry through a pass."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.network.layout import Layout
from snnprune.network.links import Gain, Norm

# Operations that change no value: not worth telling about a link.
VIEWS = frozenset(
    {"flatten", "unflatten", "view", "reshape", "expand", "squeeze", "unsqueeze", "contiguous"}
    | {"clone", "detach", "to", "float", "half", "bfloat16", "double", "type_as", "_to_copy"}
    | {"__getitem__", "select", "narrow", "stack", "cat", "concat", "unbind", "split", "chunk"}
    | {"repeat", "data", "alias", "type", "expand_as", "view_as", "_unsafe_view", "__setitem__"}
    | {"cpu", "cuda", "tensor_split", "slice", "ravel", "atleast_1d", "reshape_as", "copy"}
    | {"vstack", "hstack", "dstack", "unsafe_chunk", "unsafe_split", "broadcast_to"}
    | {"requires_grad", "broadcast_tensors", "__set__"}
)
# Of these, the ones after which the channels may lie elsewhere.
MOVES = frozenset(
    {"transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"}
)
# Those that take what lies at some places of a dimension, as at one time step.
PICKS = frozenset({"__getitem__", "select", "unbind", "narrow", "split", "chunk", "slice"})
SCALINGS = frozenset({"mul", "div", "neg"})
# What enters these as a factor; all else that has no part in the data is added or put in.
FACTORS = SCALINGS | {"addcmul", "addcdiv"}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Origin:
    """Where a tensor came from: what made it, and the origins of what that was made of."""

    name: str
    parents: tuple[Origin, ...] = ()
    inside: tuple[str, ...] = ()
    """Names of the modules in whose code it was made, the innermost last."""
    parameter: str | None = None
    layout: Layout | None = None
    """Of a parameter, or what is one in another form: how that lies to it."""
    layer: str | None = None
    shape: tuple[int, ...] = ()
    """Of a layer's output."""
    norm: Norm | None = None
    gain: Gain | None = None
    written: str = ""
    """Of what is made of parameters: the function in whose code that is, if it is not torch's."""
    constant: str = ""
    """What a product or sum takes besides: a number, or a parameter's key."""
    neuron: str | None = None
    variances: frozenset[str] = frozenset()
    """Running variances that had a part in it, since the last layer or neuron."""
    data: bool = False
    """Whether it depends on what is fed to the network."""
    fed: bool = False
    """Whether a spiking neuron had a part in it."""
    driven: bool = False
    """Whether a layer's current is in it, and not through spikes alone."""
    analog: bool = False
    """Whether it depends on what is fed to the network, and not through spikes alone."""

    @property
    def place(self) -> str:
        """Name of the module in whose code it was made."""
        return self.inside[-1] if self.inside else ""

    @property
    def sources(self) -> tuple[Origin, ...]:
        """The parents that depend on what is fed to the network."""
        return tuple(parent for parent in self.parents if parent.data)


def made_by(
    name: str,
    parents: tuple[Origin, ...],
    *,
    inside: tuple[str, ...] = (),
    norm: Norm | None = None,
    gain: Gain | None = None,
) -> Origin:
    """The origin of what an operation `name` makes of tensors with these origins."""
    return Origin(
        name=name,
        parents=parents,
        inside=inside,
        norm=norm,
        gain=gain,
        variances=frozenset() if norm else _variances(name, parents),
        data=any(parent.data for parent in parents),
        fed=any(parent.fed for parent in parents),
        driven=any(parent.driven for parent in parents),
        analog=any(parent.analog for parent in parents),
    )


def _variances(name: str, parents: tuple[Origin, ...]) -> frozenset[str]:
    """Those that scale what is made; the variance of a `batch_norm` call is told by its norm.

    A shift that was computed of a variance, or what a picture is padded with, scales no data.
    """
    data = [parent for parent in parents if parent.data]
    having = data if data and name not in FACTORS else parents
    return frozenset[str]().union(*(parent.variances for parent in having))


def spikes_of(neuron: str) -> Origin:
    """The origin of a neuron's spikes."""
    return Origin(name=neuron, neuron=neuron, data=True, fed=True)
