"""Comparisons that are neurons, as a pass meets them: what is compared, and the spikes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.graph.calls import ComparisonCall
from snnprune.graph.origins import (
    ComparedOperand,
    Origin,
    make_spike_origin,
    read_comparison,
)
from snnprune.graph.thresholds import (
    SiteKey,
    SiteTable,
    ThresholdSite,
    Visit,
    find_code_here,
    is_reshaped,
)
from snnprune.graph.weight_uses import TracePass

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
