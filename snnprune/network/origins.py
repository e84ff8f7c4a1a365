"""Where a tensor came from, and the way back from a neuron to the layers that drive it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snnprune.network.links import Norm

# Operations that move values and change none: not worth telling about a link.
VIEWS = frozenset(
    {"flatten", "unflatten", "view", "reshape", "expand", "squeeze", "unsqueeze", "transpose"}
    | {"permute", "movedim", "contiguous", "clone", "detach", "to", "float", "half", "bfloat16"}
    | {"__getitem__", "stack", "cat", "unbind", "split", "chunk", "repeat"}
)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a tensor came from: what made it, and the origins of what that was made of."""

    name: str
    parents: tuple[Origin, ...] = ()
    parameter: str | None = None
    layer: str | None = None
    norm: Norm | None = None
    neuron: str | None = None


@dataclass(frozen=True)
class Term:
    """One summand of a neuron's drive: a layer with what follows it, or another neuron's spikes."""

    layer: str | None
    neuron: str | None
    norms: tuple[Norm, ...]
    through: tuple[str, ...]


def terms(
    origin: Origin, norms: tuple[Norm, ...] = (), through: tuple[str, ...] = ()
) -> Iterator[Term]:
    """Walk back from a neuron's input to the layers and neurons that it is made of."""
    if origin.layer or origin.neuron:
        yield Term(origin.layer, origin.neuron, norms, through)
        return
    if origin.norm:
        norms = (*norms, origin.norm)
    elif origin.parents and origin.name not in VIEWS:
        through = (*through, origin.name)
    for parent in origin.parents:
        yield from terms(parent, norms, through)


def reaches_neuron(origin: Origin) -> bool:
    """Whether a spiking neuron had a part in it."""
    return bool(origin.neuron) or any(reaches_neuron(parent) for parent in origin.parents)
