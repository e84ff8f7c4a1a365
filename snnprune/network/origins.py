"""Where a tensor came from: a note that tensors carry through a pass."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.network.links import Gain, Norm

# Operations that change no value: not worth telling about a link.
VIEWS = frozenset(
    {"flatten", "unflatten", "view", "reshape", "expand", "squeeze", "unsqueeze", "contiguous"}
    | {"clone", "detach", "to", "float", "half", "bfloat16", "double", "type_as", "_to_copy"}
    | {"__getitem__", "select", "narrow", "stack", "cat", "concat", "unbind", "split", "chunk"}
    | {"repeat", "data", "alias", "type", "expand_as", "view_as", "_unsafe_view", "__setitem__"}
    | {"cpu", "cuda", "tensor_split", "slice", "ravel", "atleast_1d"}
)
SCALINGS = frozenset({"mul", "div", "neg"})


@dataclass(frozen=True, eq=False, kw_only=True)
class Origin:
    """Where a tensor came from: what made it, and the origins of what that was made of."""

    name: str
    parents: tuple[Origin, ...] = ()
    place: str = ""
    """Name of the module in whose code it was made."""
    parameter: str | None = None
    layer: str | None = None
    shape: tuple[int, ...] = ()
    """Of a layer's output."""
    norm: Norm | None = None
    gain: Gain | None = None
    constant: str = ""
    """What a product or sum takes besides: a number, or a parameter's key."""
    neuron: str | None = None
    variances: frozenset[str] = frozenset()
    """Running variances that had a part in it, since the last layer or neuron."""
    data: bool = False
    """Whether it depends on what is fed to the network."""
    fed: bool = False
    """Whether a spiking neuron had a part in it."""


def made_by(
    name: str,
    parents: tuple[Origin, ...],
    *,
    place: str = "",
    norm: Norm | None = None,
    gain: Gain | None = None,
) -> Origin:
    """The origin of what an operation `name` makes of tensors with these origins."""
    united: frozenset[str] = frozenset()
    return Origin(
        name=name,
        parents=parents,
        place=place,
        norm=norm,
        gain=gain,
        # the variance of a batch_norm call is told by `norm`
        variances=united if norm else united.union(*(parent.variances for parent in parents)),
        data=any(parent.data for parent in parents),
        fed=any(parent.fed for parent in parents),
    )


def spikes_of(neuron: str) -> Origin:
    """The origin of a neuron's spikes."""
    return Origin(name=neuron, neuron=neuron, data=True, fed=True)
