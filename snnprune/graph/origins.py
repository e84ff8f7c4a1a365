"""The way back from a tensor to what it was made of, and the notes of a pass on its tensors."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from snnprune.graph.network import Gain, Layout, Norm

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


def make_origin(
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
        variances=frozenset() if norm else _collect_variances(name, parents),
        data=any(parent.data for parent in parents),
        fed=any(parent.fed for parent in parents),
        driven=any(parent.driven for parent in parents),
        analog=any(parent.analog for parent in parents),
    )


def _collect_variances(name: str, parents: tuple[Origin, ...]) -> frozenset[str]:
    """Those that scale what is made; the variance of a `batch_norm` call is told by its norm.

    A shift that was computed of a variance, or what a picture is padded with, scales no data.
    """
    data = [parent for parent in parents if parent.data]
    having = data if data and name not in FACTORS else parents
    return frozenset[str]().union(*(parent.variances for parent in having))


def make_spike_origin(neuron: str) -> Origin:
    """The origin of a neuron's spikes."""
    return Origin(name=neuron, neuron=neuron, data=True, fed=True)


# What lets a small change of a current through as it is, or not at all. Any other operation between
# a layer and a neuron is an obstacle: no factor per channel describes it.
PASSING = frozenset(
    {"add", "sub", "rsub", "sum", "mean", "lerp", "pad", "constant_pad_nd", "interpolate"}
    | {f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)}
    | {f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)}
    | {f"max_pool{n}d_with_indices" for n in (1, 2, 3)}
    | {"lp_pool2d", "upsample", "upsample_nearest2d"}
    | {"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"}
    | {"where", "clamp", "clamp_min", "clamp_max", "clip", "hardtanh", "threshold"}
    | {"relu", "relu6", "leaky_relu"}
    | {"maximum", "minimum", "max", "min", "amax", "masked_fill", "max_unpool2d"}
)
# What may lay tensors side by side; over time steps the same layers or neurons made each of them.
JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})
GATES = frozenset({"mul", "bitwise_and", "logical_and", "where", "masked_fill"})
BENDS = frozenset({"abs", "relu", "clamp", "clamp_min", "clamp_max", "clip", "tanh", "sigmoid"})
SHIFTS = frozenset({"add", "sub", "rsub"})


@dataclass(frozen=True, kw_only=True)
class PassedOperation:
    """An operation on the way to a neuron."""

    origin: Origin
    """Of what it made."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.origin.name

    @property
    def gain(self) -> Gain | None:
        """The constant factor that it is."""
        return self.origin.gain

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
    through: tuple[PassedOperation, ...] = ()
    moved: bool = False
    beside: bool = False
    """Whether what other layers or neurons made was laid beside it."""
    source: Origin | None = None
    """The very output of the layer, or the spikes."""
    picked: Origin | None = None
    """What was taken of that last, as one time step of many."""


def make_recurrent_term(layer: str) -> Term:
    """What a layer inside a neuron adds to its drive."""
    return Term(layer=layer, neuron=None)


@dataclass(frozen=True)
class _StepBack:
    """How far a way back has come."""

    origin: Origin
    norms: tuple[Norm, ...] = ()
    through: tuple[PassedOperation, ...] = ()
    moved: bool = False
    beside: bool = False
    picked: Origin | None = None


def find_terms(origin: Origin, *, stops: Collection[Origin] = ()) -> Iterator[Term]:
    """Walk back from a neuron's input to the layers and neurons that it is made of.

    Each is told once for each way of normalising it, by the shortest way. The walk does not go on
    behind `stops`.
    """
    seen: set[tuple[Origin, tuple[Norm, ...]]] = set()
    steps = [_StepBack(origin)]
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
                    beside=step.beside,
                    source=here,
                    picked=step.picked,
                )
            else:
                steps += [_step_back(step, parent) for parent in here.sources]


def _step_back(step: _StepBack, parent: Origin) -> _StepBack:
    """One step further back, over the operation that `step.origin` was made by."""
    here = step.origin
    norms, through = step.norms, step.through
    if here.norm:
        norms = (*norms, here.norm)
    elif by_hand := here.variances - parent.variances:
        norms = (*norms, *(Norm(scale=None, variance=key, eps=None) for key in sorted(by_hand)))
    elif here.name not in VIEWS | MOVES and not _is_of_norm(here):
        through = (*through, PassedOperation(origin=here))
    return _StepBack(
        parent,
        norms,
        through,
        step.moved or here.name in MOVES,
        step.beside or _lays_side_by_side(here),
        here if here.name in PICKS and step.picked is None else step.picked,
    )


def _lays_side_by_side(here: Origin) -> bool:
    """Whether an operation joins what different layers or neurons made."""
    parts = here.sources if here.name in JOINS else ()
    return len({frozenset(_iter_makers(part)) for part in parts}) > 1


def _iter_makers(origin: Origin) -> Iterator[str | None]:
    return (one.layer or one.neuron for one in _walk_origins(origin) if one.layer or one.neuron)


def _is_of_norm(here: Origin) -> bool:
    """Whether an operation is part of a normalisation that a module computes by hand."""
    return any(here.place == key.rpartition(".")[0] for key in here.variances)


def find_neurons_behind(origin: Origin) -> dict[str, bool]:
    """The neurons whose spikes a tensor is made of, and whether something else decides with them.

    As where they are multiplied by what is itself computed, or a condition is joined to theirs, on
    every way. Where spikes of other neurons are what they are multiplied by, as in attention and
    in shortcuts by AND, nothing else decides.
    """
    found: dict[Origin, dict[str, bool]] = {}
    for here in _walk_origins(origin):
        if here.neuron or here.layer:
            found[here] = {here.neuron: False} if here.neuron else {}
            continue
        united: dict[str, bool] = {}
        for parent in here.sources:
            for neuron, gated in found[parent].items():
                if here.name in GATES:
                    held = gated or any(
                        _decides(one, parent, neuron, found) for one in here.sources
                    )
                    united[neuron] = united.get(neuron, False) or held
                else:
                    united[neuron] = united.get(neuron, True) and gated
        found[here] = united
    return found[origin]


def _walk_origins(origin: Origin, *, stops: Collection[Origin] = ()) -> Iterator[Origin]:
    """What a tensor is made of since the last layers and neurons, and itself at last."""
    done: set[Origin] = set()
    steps = [(origin, False)]
    while steps:
        here, ready = steps.pop()
        if here in done:
            continue
        if ready:
            done.add(here)
            yield here
            continue
        steps.append((here, True))
        if not here.neuron and not here.layer and here not in stops:
            steps += [(parent, False) for parent in here.sources]


def _decides(
    gate: Origin, factor: Origin, neuron: str, found: dict[Origin, dict[str, bool]]
) -> bool:
    """Whether a factor is more than spikes of others, as what a neuron's own leave behind."""
    if _find_unchanged(gate) is _find_unchanged(factor):
        return False
    return gate.analog or neuron in found[gate]


def is_spikes(origin: Origin) -> bool:
    """Whether it is a neuron's spikes in some form, and nothing else."""
    return _find_unchanged(origin).neuron is not None


def _find_unchanged(origin: Origin) -> Origin:
    """What a tensor is another form or a multiple of."""
    while origin.neuron is None and len(origin.sources) == 1:
        if origin.name not in VIEWS | MOVES | SCALINGS:
            break
        (origin,) = origin.sources
    return origin


@dataclass(frozen=True, kw_only=True)
class ComparedOperand:
    """What is compared with a threshold, back to the membrane potential that it is a form of."""

    origin: Origin
    forms: tuple[Origin, ...]
    """From what is compared to the membrane potential, or at a first step to the current."""

    def find_state(self) -> tuple[Origin, ...]:
        """The forms, and what was bent before, as by an absolute value."""
        found = list(self.forms)
        while found[-1].name in BENDS and len(found[-1].sources) == 1:
            found.append(found[-1].sources[0])
        return tuple(found)

    @property
    def operations(self) -> tuple[Origin, ...]:
        """Those that made each form of the one behind it."""
        return self.forms[:-1]

    def list_scalings(self) -> tuple[Origin, ...]:
        """Those of them that multiply."""
        return tuple(one for one in self.operations if one.gain is not None)

    def is_turned(self) -> bool:
        """Whether it falls where the membrane rises."""
        return sum(one.name in ("neg", "rsub") for one in self.operations) % 2 == 1

    @property
    def membrane(self) -> Origin:
        """The last of the forms."""
        return self.forms[-1]

    def list_constants(self) -> tuple[str, ...]:
        """The known thresholds that were taken off and factors, as they are written."""
        return tuple(f"{one.name} {one.constant}" for one in self.operations if one.constant)


def read_comparison(operand: Origin) -> ComparedOperand:
    """What a comparison is of: a membrane potential, shifted and scaled.

    At the first time step the membrane may be the current itself.
    """
    forms = [operand]
    while before := _find_form_behind(forms):
        forms.append(before)
    return ComparedOperand(origin=operand, forms=tuple(forms))


def _find_form_behind(forms: list[Origin]) -> Origin | None:
    here = forms[-1]
    if here.layer or here.norm or here.neuron or here.name in PICKS:
        return None
    sources = here.sources
    if len(sources) == 1:
        known = here.name in SCALINGS | VIEWS | {"sub", "rsub"}
        return sources[0] if known or (here.name == "add" and here.constant) else None
    # an adaptive threshold is made of spikes: what is compared may be its distance to the membrane
    first = all(one.name in VIEWS | SCALINGS for one in forms[:-1])
    driven = [one for one in sources if one.driven]
    is_distance = first and here.name in ("sub", "rsub", "div") and len(driven) == 1
    return driven[0] if is_distance else None


def find_between(origin: Origin, marks: Collection[Origin]) -> set[Origin]:
    """What lies on the ways from `origin` back to `marks`, both included; the state of a neuron."""
    found: set[Origin] = set()
    for here in _walk_origins(origin, stops=marks):
        if here in marks or any(parent in found for parent in here.sources):
            found.add(here)
    return found


NOTE = "_snnprune_origin"
PLAIN = frozenset({type(None), bool, int, float, str})


def list_tensors(tree: Any) -> list[Tensor]:
    """The tensors in what a call takes or gives, in their order."""
    if isinstance(tree, Tensor):
        return [tree]
    kind = type(tree)
    if kind in PLAIN:
        return []
    if kind is tuple or kind is list or kind is dict:
        parts = tree.values() if kind is dict else tree
        return [leaf for part in parts for leaf in list_tensors(part)]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]  # of others, slowly


class OriginNotes:
    """Where each tensor of a pass came from; what an earlier pass noted counts no more."""

    def __init__(self, module: nn.Module) -> None:
        named = module.named_parameters(remove_duplicate=True)
        self.keys = {id(p): key for key, p in named}
        self.parameters: dict[int, Origin] = {}
        self.buffers = {id(b): key for key, b in module.named_buffers()}
        # a neuron may let go of one, and its id be given again
        self.held = [*module.buffers(), *module.parameters()]
        self.start()

    def start(self) -> None:
        """Begin a pass."""
        self.now = object()
        self.on_buffers: dict[int, Origin] = {}
        self.tensors: dict[Origin, weakref.ref[Tensor]] = {}

    def of(self, leaf: object) -> Origin | None:
        """Where a tensor came from, as far as it is known."""
        if not isinstance(leaf, Tensor):
            return None
        if (noted := self.on_buffers.get(id(leaf))) is not None:
            return noted
        key = self.buffers.get(id(leaf), "")
        if key.endswith("running_var"):
            return Origin(name=key, variances=frozenset({key}))
        if (parameter := self.parameter(leaf)) is not None:
            return parameter
        when, origin = getattr(leaf, NOTE, (None, None))
        return origin if when is self.now else None

    def parameter(self, leaf: object) -> Origin | None:
        """The origin of a parameter of the network."""
        if not isinstance(leaf, Tensor) or (key := self.keys.get(id(leaf))) is None:
            return None
        if id(leaf) not in self.parameters:  # a lazy one has its shape by now
            self.parameters[id(leaf)] = Origin(
                name=key, parameter=key, layout=Layout.of(leaf.shape)
            )
        return self.parameters[id(leaf)]

    def is_buffer(self, tensor: Tensor) -> bool:
        """Whether it is a buffer of the network, as a fixed filter is."""
        return id(tensor) in self.buffers

    def list_origins(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        found = ((leaf, self.of(leaf)) for leaf in list_tensors(tree))
        return tuple(
            origin
            for leaf, origin in found
            if origin is not None and not (origin.data and leaf.numel() == 0)  # nothing is in it
        )

    def put(self, leaf: object, origin: Origin) -> None:
        """Note where a tensor came from."""
        if not isinstance(leaf, Tensor) or id(leaf) in self.keys:
            return
        self.tensors[origin] = weakref.ref(leaf)
        if id(leaf) in self.buffers:  # outlives the pass: nothing is to be left on it
            self.on_buffers[id(leaf)] = origin
        else:
            setattr(leaf, NOTE, (self.now, origin))

    def forget(self, leaf: object) -> None:
        """What was in a tensor is not in it any more."""
        self.on_buffers.pop(id(leaf), None)
        if isinstance(leaf, Tensor) and hasattr(leaf, NOTE):
            delattr(leaf, NOTE)

    def name_constant(self, constant: Any) -> str:
        """A number, or the key of a parameter or buffer, to know an operation again by."""
        if not isinstance(constant, Tensor):
            return repr(constant)
        return self.keys.get(id(constant)) or self.buffers.get(id(constant), "")
