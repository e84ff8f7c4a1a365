"""The way back from a tensor to what it was made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from snnprune.network.links import Gain, Norm
from snnprune.network.origins import SCALINGS, VIEWS, Origin

# Of these, the ones after which the channels may lie elsewhere.
MOVES = frozenset(
    {"transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"}
)
# What lets a small change of a current through as it is, or not at all. Any other operation between
# a layer and a neuron is an obstacle: no factor per channel describes it.
PASSING = frozenset(
    {"add", "sub", "rsub", "sum", "mean", "lerp", "pad", "constant_pad_nd", "interpolate"}
    | {f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)}
    | {f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)}
    | {"max_pool2d_with_indices", "lp_pool2d", "upsample", "upsample_nearest2d"}
    | {"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"}
    | {"where", "clamp", "clamp_min", "clamp_max", "clip", "relu", "leaky_relu", "threshold"}
    | {"maximum", "minimum", "max", "min", "amax", "masked_fill", "max_unpool2d"}
)
GATES = frozenset({"mul", "bitwise_and", "logical_and", "where", "masked_fill"})


@dataclass(frozen=True, kw_only=True)
class Passed:
    """An operation on the way to a neuron, and the module in whose code it is."""

    name: str
    place: str
    gain: Gain | None = None

    @property
    def is_obstacle(self) -> bool:
        """Whether no factor per channel describes it."""
        return self.name not in PASSING and self.gain is None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a neuron's drive: a layer with what follows it, or another neuron's spikes."""

    layer: str | None
    neuron: str | None
    norms: tuple[Norm, ...] = ()
    through: tuple[Passed, ...] = ()
    moved: bool = False
    source: Origin | None = None
    """The very output of the layer, or the spikes."""


def recurrent(layer: str) -> Term:
    """What a layer inside a neuron adds to its drive."""
    return Term(layer=layer, neuron=None)


@dataclass(frozen=True)
class _Step:
    """How far a way back has come."""

    origin: Origin
    norms: tuple[Norm, ...] = ()
    through: tuple[Passed, ...] = ()
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
                    source=here,
                )
            else:
                steps += [_back(step, parent) for parent in here.parents if parent.data]


def _back(step: _Step, parent: Origin) -> _Step:
    """One step further back, over the operation that `step.origin` was made by."""
    here = step.origin
    norms, through = step.norms, step.through
    if here.norm:
        norms = (*norms, here.norm)
    elif by_hand := here.variances - parent.variances:
        norms = (*norms, *(Norm(scale=None, variance=key, eps=None) for key in sorted(by_hand)))
    elif here.name not in VIEWS | MOVES and not _is_of_norm(here):
        through = (*through, Passed(name=here.name, place=here.place, gain=here.gain))
    return _Step(parent, norms, through, step.moved or here.name in MOVES)


def _is_of_norm(here: Origin) -> bool:
    """Whether an operation is part of a normalisation that a module computes by hand."""
    return any(here.place == key.rpartition(".")[0] for key in here.variances)


def neurons_behind(origin: Origin) -> dict[str, bool]:
    """The neurons whose spikes a tensor is made of, and whether something else decides with them.

    As where they are multiplied by what is itself computed, or a condition is joined to theirs, on
    every way.
    """
    found: dict[str, bool] = {}
    steps, seen = [(origin, False)], set[tuple[Origin, bool]]()
    while steps:
        here, gated = steps.pop()
        if (here, gated) in seen:
            continue
        seen.add((here, gated))
        if here.neuron:
            found[here.neuron] = found.get(here.neuron, True) and gated
        elif not here.layer:
            data = [parent for parent in here.parents if parent.data]
            gates = here.name in GATES and len(data) > 1
            steps += [(parent, gated or gates) for parent in data]
    return found


def membrane_chain(operand: Origin) -> tuple[list[Origin], list[Origin]]:
    """What is compared, back to the membrane potential that it is a shifted or scaled form of.

    And the operations that make it of the membrane, the last first. At the first time step the
    membrane may be the current itself.
    """
    forms, operations = [operand], list[Origin]()
    while operand.name in SCALINGS | VIEWS | {"sub", "rsub"} and not operand.norm:
        data = [parent for parent in operand.parents if parent.data]
        if len(data) != 1:
            break
        operations.append(operand)
        operand = data[0]
        forms.append(operand)
        if operand.layer or operand.norm or operand.neuron:
            break
    return forms, operations


def scaled_parameter(origin: Origin) -> str | None:
    """The parameter that a weight is, or is an elementwise multiple of; else None.

    A weight that is 0 there is 0 in the layer, and touches no other.
    """
    while origin.parameter is None:
        if origin.name not in VIEWS | {"mul", "div"} or len(origin.parents) != 1:
            return None
        origin = origin.parents[0]
    return origin.parameter


def is_turned_parameter(origin: Origin) -> bool:
    """Whether a weight is a parameter in another order of dimensions, as in a tied decoder."""
    moved = False
    while origin.parameter is None and len(origin.parents) == 1 and origin.name in VIEWS | MOVES:
        moved = moved or origin.name in MOVES
        origin = origin.parents[0]
    return moved and origin.parameter is not None


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
