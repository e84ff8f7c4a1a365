"""Spiking neurons that are no module of a known library: comparisons in somebody's code.

Whatever a neuron looks like, at one place its membrane potential is compared with its threshold.
A comparison of something that descends from a layer is such a place. The same place is met again at
every time step, with a membrane that descends from the one before.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.network.origins import Origin
from snnprune.network.walking import Term, membrane_chain, terms


@dataclass(frozen=True, kw_only=True)
class Place:
    """What tells one comparison of a program from another."""

    inside: tuple[str, ...]
    """Names of the modules around it, the innermost last."""
    shape: tuple[int, ...]
    """Of the membrane."""
    written: tuple[str, ...]
    """How it is written: the operations on the membrane, the threshold, the sign."""


@dataclass(kw_only=True, eq=False)
class Site:
    """One place where membranes are compared with a threshold."""

    index: int
    place: Place
    also_equal: bool
    """Whether u = u_th is a spike."""
    terms: list[Term] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What stands for its spikes while a pass goes on."""
        return f"site {self.index}"

    @property
    def feeders(self) -> set[str]:
        """Weights of the layers that drive it."""
        return _layers(self.terms)


@dataclass(frozen=True)
class Met:
    """A site, met once more."""

    site: Site
    is_new: bool
    """Whether this membrane has not been compared here before, as some neurons do to reset."""
    shape: tuple[int, ...] | None = None
    """Of the output of the layers that the membrane is made of in this step, where all agree and
    no dimension has changed places."""


class Sites:
    """The sites of one pass, recognised again at each time step."""

    def __init__(self) -> None:
        self.found: list[Site] = []
        self.membranes: dict[Origin, list[Site]] = defaultdict(list)
        """What was compared, and where."""

    def at(self, operand: Origin, place: Place, *, also_equal: bool) -> Met | None:
        """The site at which a tensor of that origin is compared; None where no layer drives it."""
        again = [site for site in self.membranes.get(operand, ()) if site.place == place]
        if again:
            return Met(again[0], is_new=False)
        before = self._behind(operand, place)
        drive = list(terms(operand, stops=self._marks(before)))
        if before is not None and _layers(drive) and not _layers(drive) & before.feeders:
            before, drive = None, list(terms(operand))  # a sum of currents that another one saw too
        if before is None and not _layers(drive):
            return None
        site = before or self._known(place, drive)
        if site is None:
            site = Site(index=len(self.found), place=place, also_equal=also_equal)
            self.found.append(site)
        site.terms += drive
        forms, _ = membrane_chain(operand)
        for origin in forms:
            self.membranes[origin].append(site)
        return Met(site, is_new=True, shape=_shape_of(drive))

    def _behind(self, operand: Origin, place: Place) -> Site | None:
        """The site at that place whose membrane this one descends from."""
        steps, seen = [operand], set[Origin]()
        while steps:
            here = steps.pop(0)
            for site in self.membranes.get(here, ()):
                if site.place == place:
                    return site
            if here not in seen and not here.layer and not here.neuron:
                seen.add(here)
                steps += here.parents
        return None

    def _marks(self, site: Site | None) -> set[Origin]:
        return {origin for origin, sites in self.membranes.items() if site in sites}

    def _known(self, place: Place, drive: list[Term]) -> Site | None:
        """The site of that place, where its membrane does not tell.

        Two populations of neurons that one and the same current drives are two sites.
        """
        sources = {term.source for term in drive}
        for site in self.found:
            met = {term.source for term in site.terms}
            if site.place == place and site.feeders == _layers(drive) and not met & sources:
                return site
        return None


def _layers(drive: list[Term]) -> set[str]:
    return {term.layer for term in drive if term.layer is not None}


def _shape_of(drive: list[Term]) -> tuple[int, ...] | None:
    shapes = {term.source.shape for term in drive if term.layer and term.source}
    return shapes.pop() if len(shapes) == 1 and not any(term.moved for term in drive) else None


@contextlib.contextmanager
def _recording(_: nn.Module, __: MembraneSink) -> Iterator[None]:
    """Nothing to do: who follows the pass sees the comparison."""
    yield


def _constants(_: Any) -> NeuronConstants:
    return NeuronConstants(threshold=0.0)


def _reset(_: Any) -> None:
    """Its state is taken back with everything else that a pass leaves behind."""


COMPARISON = NeuronLibrary(
    name="comparison",
    base_classes=(),
    constants=_constants,
    recording=_recording,
    reset=_reset,
)
