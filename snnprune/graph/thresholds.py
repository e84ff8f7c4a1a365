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

from torch import Tensor, nn

from snnprune.graph.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.graph.origins import (
    ComparedOperand,
    Origin,
    Term,
    find_between,
    find_terms,
    is_spikes,
)

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
