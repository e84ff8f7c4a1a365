"""Where a tensor came from, and the way back from a neuron to the layers that drive it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from snnprune.network.links import Norm

# Operations that change no value: not worth telling about a link.
VIEWS = frozenset(
    {"flatten", "unflatten", "view", "reshape", "expand", "squeeze", "unsqueeze", "contiguous"}
    | {"clone", "detach", "to", "float", "half", "bfloat16", "double", "type_as", "_to_copy"}
    | {"__getitem__", "select", "narrow", "stack", "cat", "concat", "unbind", "split", "chunk"}
    | {"repeat", "data", "alias", "type", "expand_as", "view_as", "_unsafe_view", "__setitem__"}
)
# Of these, the ones after which the channels may lie elsewhere.
MOVES = frozenset(
    {"transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"}
)
# What no factor per channel describes.
OBSTACLES = frozenset(
    {"layer_norm", "group_norm", "instance_norm", "rms_norm", "batch_norm", "softmax"}
    | {"local_response_norm", "normalize"}
)
SCALINGS = frozenset({"sub", "rsub", "mul", "div", "true_divide", "neg"})


@dataclass(frozen=True, eq=False, kw_only=True)
class Origin:
    """Where a tensor came from: what made it, and the origins of what that was made of."""

    name: str
    parents: tuple[Origin, ...] = ()
    parameter: str | None = None
    layer: str | None = None
    shape: tuple[int, ...] = ()
    """Of a layer's output."""
    norm: Norm | None = None
    neuron: str | None = None
    variances: frozenset[str] = frozenset()
    """Running variances that had a part in it, since the last layer or neuron."""
    fed: bool = False
    """Whether a spiking neuron had a part in it."""
    neurons: frozenset[str] = frozenset()
    """The neurons that had a part in it, since the last layer."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a neuron's drive: a layer with what follows it, or another neuron's spikes."""

    layer: str | None
    neuron: str | None
    norms: tuple[Norm, ...]
    through: tuple[str, ...]
    moved: bool
    shape: tuple[int, ...]
    """Of the layer's output."""


def recurrent(layer: str) -> Term:
    """What a layer inside a neuron adds to its drive."""
    return Term(layer=layer, neuron=None, norms=(), through=(), moved=False, shape=())


def made_by(name: str, parents: tuple[Origin, ...], *, norm: Norm | None = None) -> Origin:
    """The origin of what an operation `name` makes of tensors with these origins."""
    united: frozenset[str] = frozenset()
    return Origin(
        name=name,
        parents=parents,
        norm=norm,
        # the variance of a batch_norm call is told by `norm`
        variances=united if norm else united.union(*(parent.variances for parent in parents)),
        fed=any(parent.fed for parent in parents),
        neurons=united.union(*(parent.neurons for parent in parents)),
    )


@dataclass(frozen=True)
class _Step:
    """How far a way back has come."""

    origin: Origin
    norms: tuple[Norm, ...] = ()
    through: tuple[str, ...] = ()
    moved: bool = False


def terms(origin: Origin, *, stops: Collection[Origin] = ()) -> Iterator[Term]:
    """Walk back from a neuron's input to the layers and neurons that it is made of.

    Each is told once for each way of normalising it, by the shortest way. The walk does not go on
    behind `stops`.
    """
    seen: set[tuple[Origin, tuple[Norm, ...]]] = set()
    steps = [_Step(origin)]
    while steps:
        level, steps = steps, []
        for step in level:
            if (step.origin, step.norms) in seen or step.origin in stops:
                continue
            seen.add((step.origin, step.norms))
            here = step.origin
            if here.layer or here.neuron:
                yield Term(
                    layer=here.layer,
                    neuron=here.neuron,
                    norms=step.norms,
                    through=step.through,
                    moved=step.moved,
                    shape=here.shape,
                )
            else:
                steps += [_back(step, parent) for parent in here.parents]


def _back(step: _Step, parent: Origin) -> _Step:
    """One step further back, over the operation that `step.origin` was made by."""
    here = step.origin
    norms, through = step.norms, step.through
    if here.norm:
        norms = (*norms, here.norm)
    elif by_hand := here.variances - parent.variances:
        norms = (*norms, *(Norm(scale=None, variance=key, eps=None) for key in sorted(by_hand)))
    elif here.name not in VIEWS | MOVES and here.name not in through:
        through = (*through, here.name)
    return _Step(parent, norms, through, step.moved or here.name in MOVES)


def membrane_origins(operand: Origin) -> Iterator[Origin]:
    """What is the membrane potential itself, where a shifted or scaled one is compared."""
    yield operand
    while operand.name in SCALINGS | VIEWS and len(operand.parents) == 1:
        operand = operand.parents[0]
        if operand.layer or operand.norm or operand.neuron:
            return
        yield operand


def scaled_parameter(origin: Origin) -> str | None:
    """The parameter that a weight is, or is an elementwise multiple of; else None.

    A weight that is 0 there is 0 in the layer, and touches no other.
    """
    while origin.parameter is None:
        if origin.name not in VIEWS | {"mul", "div"} or len(origin.parents) != 1:
            return None
        origin = origin.parents[0]
    return origin.parameter


def parameters_behind(origin: Origin) -> list[str]:
    """The parameters that a weight is made of."""
    found, steps, seen = [], [origin], set[Origin]()
    while steps:
        here = steps.pop()
        if here in seen:
            continue
        seen.add(here)
        found += [here.parameter] if here.parameter else []
        steps += here.parents
    return sorted(found)
