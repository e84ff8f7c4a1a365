"""Spiking neurons that are no module of a known library: comparisons in somebody's code.

Whatever a neuron looks like, at one place its membrane potential is compared with its threshold.
A comparison of something that descends from a layer is such a place. The same place is met again at
every time step, with a membrane that descends from the one before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.network.origins import Origin, Term, membrane_origins, terms


@dataclass(kw_only=True, eq=False)
class Site:
    """One place where membranes are compared with a threshold."""

    index: int
    inside: tuple[str, ...]
    """Names of the modules around it, the innermost last."""
    shape: tuple[int, ...]
    """Of the membrane."""
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
        return {term.layer for term in self.terms if term.layer is not None}


@dataclass(frozen=True)
class Met:
    """A site, met once more."""

    site: Site
    is_new: bool
    """Whether this membrane has not been compared before, as some neurons do to reset."""
    shape: tuple[int, ...] | None = None
    """Of the output of the layers that the membrane is made of in this step, where all agree and
    no dimension has changed places."""


class Sites:
    """The sites of one pass, recognised again at each time step."""

    def __init__(self) -> None:
        self.found: list[Site] = []
        self.membranes: dict[Origin, Site] = {}
        """What was compared, and where."""

    def at(
        self, operand: Origin, *, inside: tuple[str, ...], shape: tuple[int, ...], also_equal: bool
    ) -> Met | None:
        """The site at which a tensor of that origin and shape is compared.

        None where no layer had a part in it.
        """
        if operand in self.membranes:
            return Met(self.membranes[operand], is_new=False)
        before = self._behind(operand, inside, shape)
        drive = list(terms(operand, stops=self._marks(before)))
        if before is not None and _layers(drive) and not _layers(drive) & before.feeders:
            before, drive = None, list(terms(operand))  # a sum of currents that another one saw too
        if before is None and not _layers(drive):
            return None
        site = before or self._known(inside, _layers(drive), shape)
        if site is None:
            site = Site(index=len(self.found), inside=inside, also_equal=also_equal, shape=shape)
            self.found.append(site)
        site.terms += drive
        self.membranes.update(dict.fromkeys(membrane_origins(operand), site))
        return Met(site, is_new=True, shape=_shape_of(drive))

    def _behind(
        self, operand: Origin, inside: tuple[str, ...], shape: tuple[int, ...]
    ) -> Site | None:
        """The site in the same module whose membrane this one descends from."""
        steps, seen = [operand], set[Origin]()
        while steps:
            here = steps.pop(0)
            site = self.membranes.get(here)
            if site is not None and (site.inside, site.shape) == (inside, shape):
                return site
            if here not in seen and not here.layer and not here.neuron:
                seen.add(here)
                steps += here.parents
        return None

    def _marks(self, site: Site | None) -> set[Origin]:
        return {origin for origin, other in self.membranes.items() if other is site}

    def _known(
        self, inside: tuple[str, ...], feeders: set[str], shape: tuple[int, ...]
    ) -> Site | None:
        """The site of that place, where its membrane does not tell."""
        same = (s for s in self.found if (s.inside, s.feeders, s.shape) == (inside, feeders, shape))
        return next(same, None)


def _layers(drive: list[Term]) -> set[str]:
    return {term.layer for term in drive if term.layer is not None}


def _shape_of(drive: list[Term]) -> tuple[int, ...] | None:
    shapes = {term.shape for term in drive if term.layer is not None}
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
