"""Spiking neurons that are no module of a known library: comparisons in somebody's code.

Whatever a neuron looks like, at one place its membrane potential is compared with its threshold.
A comparison of something that descends from a layer is such a place. The same place is met again at
every time step, with a membrane that descends from the one before.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.calls import ComparisonCall
from snnprune.graph.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.graph.origins import (
    ComparedOperand,
    Origin,
    Term,
    find_between,
    find_terms,
    is_spikes,
    make_spike_origin,
    read_comparison,
)
from snnprune.graph.weight_uses import TracePass

Code = tuple[tuple[object, int], ...]
"""Where a program is: the functions that it is in, and where in each."""
MODULE_CALLS, OURS = "torch.nn.modules.module", "snnprune"


@dataclass(frozen=True, kw_only=True)
class SiteKey:
    """What tells one comparison of a program from another."""

    inside: tuple[str, ...]
    """Names of the modules around it, the innermost last."""
    code: Code
    """From the comparison out to the module that it is in."""
    shape: tuple[int, ...]
    """Of the membrane."""
    written: tuple[object, ...]
    """The thresholds that are known by name or number, and the sign."""


def find_code_here() -> Code:
    """Where the call is made that is being followed, in the code of the innermost module."""
    found: list[tuple[object, int]] = []
    frame = sys._getframe(1)
    while _package_of(frame) == OURS and frame.f_back is not None:
        frame = frame.f_back
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == MODULE_CALLS or _package_of(frame) == OURS:
            break
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back  # type: ignore[assignment] # None ends the loop
    return tuple(found)


def find_function_here() -> str:
    """The function whose call is being followed, as `UserLayer.forward`; "" if it is torch's."""
    frame = sys._getframe(1)
    while _package_of(frame) == OURS and frame.f_back is not None:
        frame = frame.f_back
    return "" if _package_of(frame) == "torch" else frame.f_code.co_qualname


def _package_of(frame: Any) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class ComparisonEvent:
    """One comparison at a site: a time step."""

    compared: ComparedOperand
    terms: tuple[Term, ...]
    """What drives the membrane in this step."""
    state: frozenset[Origin]
    """What the membrane of the step before has a part in; empty at the first one."""
    number: int
    """How many comparisons of neurons there were before it in the pass."""


@dataclass(kw_only=True, eq=False)
class ThresholdSite:
    """One place where membranes are compared with a threshold."""

    index: int
    place: SiteKey
    also_equal: bool
    """Whether u = u_th is a spike."""
    events: list[ComparisonEvent] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What stands for its spikes while a pass goes on."""
        return f"site {self.index}"

    def list_terms(self) -> list[Term]:
        """What drives it, over all time steps."""
        return [term for event in self.events for term in event.terms]

    def find_feeders(self) -> set[str]:
        """Weights of the layers that drive it."""
        return _collect_layers(self.list_terms())

    def count_scalings(self) -> int:
        """How many of the factors on what is compared are its own, and none of the current's.

        At a first step without a state the current itself may be compared; a later one tells.
        """
        counts = [len(event.compared.list_scalings()) for event in self.events]
        return min(counts[1:] or counts, default=0)


@dataclass(frozen=True)
class Visit:
    """A site, met once more."""

    site: ThresholdSite
    is_new: bool
    """Whether this membrane has not been compared here before, as some neurons do to reset."""
    shape: tuple[int, ...] | None = None
    """Of the output of the layers that the membrane is made of in this step, where all agree and
    no dimension has changed places."""


class SiteTable:
    """The sites of one pass, recognised again at each time step."""

    def __init__(self) -> None:
        self.found: list[ThresholdSite] = []
        self.met = 0
        self.membranes: dict[Origin, list[ThresholdSite]] = defaultdict(list)
        """What was compared, and where."""
        self.codes: set[Code] = set()
        """Where neurons that layers drive are compared, in the code of their own modules."""
        self.resting: dict[SiteKey, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        """u - u_th and spikes of membranes that nothing has reached yet."""

    def at(self, what: ComparedOperand, place: SiteKey, *, also_equal: bool) -> Visit | None:
        """The site at which that is compared; None where it is no membrane of a neuron."""
        operand = what.origin
        again = [site for site in self.membranes.get(operand, ()) if site.place == place]
        if again:
            return Visit(again[0], is_new=False)
        before = self._find_descendant(what, place)
        state = find_between(operand, self._collect_marks(before)) if before else set[Origin]()
        drive = list(find_terms(operand, stops=self._collect_marks(before)))
        if (
            before is not None
            and _collect_layers(drive)
            and not _collect_layers(drive) & before.find_feeders()
        ):
            # a sum of currents that another one saw too
            before, state, drive = None, set(), list(find_terms(operand))
        if (
            before is None
            and not _collect_layers(drive)
            and not self._is_of_known_code(what, place)
        ):
            return None
        site = before or self._find_known_site(place, drive)
        if site is None:
            site = ThresholdSite(index=len(self.found), place=place, also_equal=also_equal)
            self.found.append(site)
        if _collect_layers(drive) and place.inside:
            self.codes.add(place.code)
        site.events.append(
            ComparisonEvent(
                compared=what, terms=tuple(drive), state=frozenset(state), number=self.met
            )
        )
        self.met += 1
        for origin in what.find_state():
            self.membranes[origin].append(site)
        return Visit(site, is_new=True, shape=_shape_of(drive))

    def _find_descendant(self, what: ComparedOperand, place: SiteKey) -> ThresholdSite | None:
        """The site at that place whose membrane this one descends from."""
        steps, seen = [what.origin], set[Origin]()
        others = set[ThresholdSite]()  # that the membrane of this very step was compared at
        while steps:
            here = steps.pop(0)
            there = [
                site
                for site in self.membranes.get(here, ())
                if site.place == place and site not in others
            ]
            if there:
                if chosen := _choose_by_threshold(there, what):
                    return chosen
                others.update(there)
            if here not in seen and not here.layer and not here.neuron:
                seen.add(here)
                steps += here.parents
        return None

    def _collect_marks(self, site: ThresholdSite | None) -> set[Origin]:
        return {origin for origin, sites in self.membranes.items() if site in sites}

    def _find_known_site(self, place: SiteKey, drive: list[Term]) -> ThresholdSite | None:
        """The site of that place, where its membrane does not tell.

        Two populations of neurons that one and the same current drives are two sites.
        """
        sources = _collect_sources(drive)
        for site in self.found:
            known = site.place == place and site.find_feeders() == _collect_layers(drive)
            if known and not _collect_sources(site.list_terms()) & sources:
                return site
        return None

    def _is_of_known_code(self, what: ComparedOperand, place: SiteKey) -> bool:
        """Whether what layers drive elsewhere is compared in the same code.

        Then it is a neuron too, though spikes alone drive it, as in attention.
        """
        return place.code in self.codes and what.origin.fed and not is_spikes(what.origin)


def _choose_by_threshold(sites: list[ThresholdSite], what: ComparedOperand) -> ThresholdSite | None:
    """Of sites that compare one membrane, the one with the threshold and scale that it has now.

    None where the membrane of the same step is compared there with others.
    """
    now = what.list_constants()
    same = [site for site in sites if site.events[-1].compared.list_constants() == now]
    if same:
        return same[0]
    this_step = any(site.events[-1].compared.membrane is what.membrane for site in sites)
    return None if this_step else sites[0]


def _collect_layers(drive: list[Term]) -> set[str]:
    return {term.layer for term in drive if term.layer is not None}


def _collect_sources(drive: list[Term]) -> set[tuple[Origin | None, Origin | None]]:
    """What drives a neuron, and which part of it, as a time step of many."""
    return {(term.source, term.picked) for term in drive}


def _shape_of(drive: list[Term]) -> tuple[int, ...] | None:
    shapes = {term.source.shape for term in drive if term.layer and term.source}
    return shapes.pop() if len(shapes) == 1 and not any(term.moved for term in drive) else None


@contextlib.contextmanager
def _record_nothing(_: nn.Module, __: MembraneSink) -> Iterator[None]:
    """Nothing to do: who follows the pass sees the comparison."""
    yield


def _read_constants(_: Any) -> NeuronConstants:
    return NeuronConstants(threshold=0.0)


def _reset(_: Any) -> None:
    """Its state is taken back with everything else that a pass leaves behind."""


COMPARISON = NeuronLibrary(
    name="comparison",
    base_classes=(),
    constants=_read_constants,
    recording=_record_nothing,
    reset=_reset,
)
"""Neurons that are comparisons in somebody's code."""


def is_reshaped(compared: Sequence[int], current: Sequence[int]) -> bool:
    """Whether what is compared is what a layer gives, in another shape."""
    return math.prod(compared) == math.prod(current) and _drop_unit_dims(
        compared
    ) != _drop_unit_dims(current)


def _drop_unit_dims(shape: Iterable[int]) -> list[int]:
    """Its dimensions but those of one."""
    return [length for length in shape if length != 1]


RESTING = 1024  # time steps of a membrane at rest that are kept until an input comes
NEAR = 12  # operations back in which a surrogate and its spikes are found
# Straight-through surrogates are put together of these, and spikes written over a membrane.
JOINS = frozenset({"add", "sub", "rsub", "where", "masked_fill", "__setitem__"})
STRAIGHT = 1e-4  # how far rounding takes (spike - surrogate) + surrogate from the spike
STIRRED = 0.25  # how far a change of the membrane between the two does


def unscale(distance: Tensor, scalings: Iterable[Origin]) -> Tensor:
    """A distance to the threshold in units of the membrane that its operand is a multiple of."""
    for made in scalings:
        if made.gain is None:
            continue
        factor = torch.as_tensor(made.gain.value, device=distance.device).detach().abs()
        if factor.numel() == 1 or factor.dim() == distance.dim():
            distance = distance * factor if made.gain.divides else distance / factor
    return distance


@dataclass(frozen=True, kw_only=True)
class ComparedMembrane:
    """A membrane at the moment at which it is compared."""

    met: Visit
    distance: Tensor
    """u - u_th; taken before the comparison, which may work in place."""
    turned: bool
    """Whether it is asked where there is no spike."""

    def read_spikes(self, result: Tensor) -> tuple[Tensor, Tensor]:
        """u - u_th and the spikes, in the shape of the layer's output where the size is the same.

        A neuron that mixes time steps by a matrix flattens everything else.
        """
        distance = self.distance
        spikes = (result == 0 if self.turned else result > 0).to(distance.dtype)
        shape = self.met.shape
        if shape is None or not is_reshaped(distance.shape, shape):
            return distance, spikes
        return distance.reshape(shape), spikes.reshape(shape)


def is_same_spikes(result: Tensor, spikes: Tensor, *, within: float = STRAIGHT) -> bool:
    """Whether a tensor is those spikes to the eye, though a surrogate was added and taken off."""
    if result.shape != spikes.shape or not result.is_floating_point():
        return False
    same = (result - spikes).abs() <= within
    return bool(same.all()) and bool(spikes.any())


class ComparisonReader:
    """Knows the comparisons that are neurons, and tells the observers of their membranes."""

    def __init__(self, followed: TracePass) -> None:
        self.followed = followed
        self.notes, self.observers = followed.notes, followed.observers
        self.settled = followed.settled
        self.start()

    def start(self) -> None:
        """Begin a pass."""
        self.sites = SiteTable()
        self.fresh: dict[str, tuple[ThresholdSite, Tensor]] = {}
        """The last spikes of each site, by what stands for them."""
        self.stirred: set[str] = set()
        """Of these, whose membrane an observer has changed since it was compared."""

    def membrane(self, call: ComparisonCall) -> ComparedMembrane | None:
        """What is compared where, if it is the membrane of a neuron."""
        for u, threshold, origin in self._list_sides(call):
            what = read_comparison(origin)
            asked_below = u is call.below
            falls = asked_below and what.is_turned()  # as u_th - u < 0: that is u > u_th
            turned = asked_below and not falls  # where u < u_th is asked, u = u_th is a spike
            also_equal = call.also_equal != turned
            place = self._make_key(u, threshold, what, asked=(asked_below, also_equal))
            if met := self.sites.at(what, place, also_equal=also_equal):
                self.observers.on_compared(met.site, u)
                with self.followed.apart():
                    own = what.list_scalings()[: self._count_own_scalings(met.site, what)]
                    distance = unscale(threshold - u if falls else u - threshold, own)
                return ComparedMembrane(met=met, distance=distance, turned=turned)
        return None

    def tell_fired(self, membrane: ComparedMembrane, result: Tensor) -> Origin:
        """Tell of a membrane and its spikes; the origin of these."""
        site = membrane.met.site
        if membrane.met.is_new:
            self.stirred.discard(site.key)
            self.notes.put(
                result, make_spike_origin(site.key)
            )  # it may be the membrane, compared in place
            with self.followed.apart():
                distance, spikes = membrane.read_spikes(result)
                if site.index in self.settled.resting:
                    for before in self.sites.resting.pop(site.place, []):
                        self.observers.on_site(site, *(one.view(distance.shape) for one in before))
                self.observers.on_site(site, distance, spikes)
                self.fresh[site.key] = (site, spikes.reshape(result.shape))
        return make_spike_origin(site.key)

    def find_resting_distance(self, call: ComparisonCall) -> Tensor | None:
        """u - u_th where nothing that was fed has come yet: maybe a membrane in its first steps."""
        u, threshold = call.above, call.below
        if not isinstance(u, Tensor) or not u.is_floating_point() or u.dim() < 2:
            return None
        if self.notes.of(u) is not None or not isinstance(threshold, Tensor | float | int):
            return None
        with self.followed.apart():
            return u - threshold

    def keep(self, call: ComparisonCall, distance: Tensor, result: Tensor) -> None:
        """Keep a membrane at rest until it is known whose it is."""
        asked = (False, call.also_equal)
        kept = self.sites.resting[self._make_key(call.above, call.below, None, asked=asked)]
        if len(kept) < RESTING and distance.shape == result.shape:
            with self.followed.apart():
                kept.append((distance, (result > 0).to(distance.dtype)))

    def find_surrogate_spikes(self, origin: Origin, result: Tensor) -> Origin:
        """The spikes, where a surrogate was added to them and taken off again; else `origin`."""
        if origin.name not in JOINS or not origin.driven or not origin.fed:
            return origin
        seen = _find_near(origin)
        for key in {one.neuron for one in seen if one.neuron in self.fresh}:
            site, spikes = self.fresh[key]
            with self.followed.apart():
                if not seen & {*site.events[-1].compared.forms}:
                    continue
                if key in self.stirred and is_same_spikes(result, spikes, within=STIRRED):
                    result.copy_(spikes)  # its surrogate was added before, and taken off after
                if is_same_spikes(result, spikes):
                    return make_spike_origin(key)
        return origin

    def _list_sides(self, call: ComparisonCall) -> list[tuple[Tensor, Any, Origin]]:
        """What may be a membrane, and its threshold; first what a layer's current is in."""
        pairs = [(call.above, call.below), (call.below, call.above)]
        known = [
            (u, threshold, origin)
            for u, threshold in pairs
            if isinstance(u, Tensor) and u.is_floating_point()
            if (origin := self.notes.of(u)) is not None and origin.data
        ]
        return sorted(known, key=lambda one: not one[2].driven)

    def _make_key(
        self, u: Tensor, threshold: Any, what: ComparedOperand | None, *, asked: tuple[bool, bool]
    ) -> SiteKey:
        """Where a comparison is; `asked` is whether it is turned round, and if equality counts."""
        return SiteKey(
            inside=tuple(self.followed.inside),
            code=find_code_here(),
            shape=tuple(u.shape),
            written=(bool(what and what.is_turned()), self.notes.name_constant(threshold), *asked),
        )

    def _count_own_scalings(self, site: ThresholdSite, what: ComparedOperand) -> int:
        return self.settled.scalings.get(site.index, len(what.list_scalings()))


def _find_near(origin: Origin) -> set[Origin]:
    """What a tensor was made of a few operations ago."""
    steps, seen = [origin], set[Origin]()
    for _ in range(NEAR):
        steps = [parent for here in steps for parent in here.sources if parent not in seen]
        seen.update(steps)
        steps = [here for here in steps if not here.layer and not here.neuron]
    return seen
