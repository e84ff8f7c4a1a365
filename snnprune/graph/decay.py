"""What a membrane keeps from one time step to the next, found by moving it a little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.network import TraceSettings
from snnprune.graph.thresholds import ThresholdSite
from snnprune.graph.tracer import Tracer
from snnprune.graph.weight_uses import Observers

STEP = 1e-2  # how far membranes are moved, in standard deviations
SOME, LEAST = 0.05, 32  # share of them, and how many at least: few, for the layers behind them
KEPT, SMALL = 12, 2**16  # steps that are kept of membranes so few; of more, three
WORK, PASSES = 1e7, 4  # membranes times passes for a pass per neuron, and passes above that
EVEN = 2e-3  # by how much the decays of one neuron's channels may differ and be one number
PLACES = 4  # decimals of a decay that are above the rounding of float32


@dataclass(frozen=True, kw_only=True)
class Decay:
    """What a membrane keeps of itself from one time step to the next."""

    beta: float | None
    """Where it is the same everywhere."""
    by_channel: Tensor | None
    """(C,) where the channels are known and differ, NaN where one is not; () if all are alike."""


@dataclass
class MembraneTrail:
    """The first u - u_th of each neuron, and its spikes then."""

    parts: Mapping[str, str] = field(default_factory=dict)
    """Sites that are steps of one neuron, in order, and the first of them."""
    distances: dict[str, list[Tensor]] = field(default_factory=dict)
    spikes: dict[str, list[Tensor]] = field(default_factory=dict)

    def take(self, site: ThresholdSite, distance: Tensor, spikes: Tensor) -> None:
        """Keep a copy of the first few."""
        key = self.parts.get(site.key, site.key)
        kept = self.distances.setdefault(key, [])
        if len(kept) < (KEPT if distance.numel() < SMALL else 3):
            kept.append(distance.clone())
            self.spikes.setdefault(key, []).append(spikes.clone())

    def merge_parts(self, parts: Mapping[str, str]) -> MembraneTrail:
        """The same with the steps of each neuron in one."""
        found = MembraneTrail(parts=parts)
        for key, first in parts.items():
            for kept, joined in ((self.distances, found.distances), (self.spikes, found.spikes)):
                joined.setdefault(first, []).extend(kept.get(key, []))
        return found


def measure_decays(
    module: nn.Module,
    run: Callable[[], Any],
    base: MembraneTrail,
    sites: Mapping[str, int | None],
    settled: TraceSettings,
) -> dict[str, Decay]:
    """The decay of each of `sites`, given with their channels' axes; those that cannot be had miss.

    They are the first ones of neurons, whose parts `base` knows. `run` runs the same batch from
    rest as when `base` was kept. In a second pass each membrane is raised a little once it was
    compared, and the next comparison tells what is left of that.
    """
    told = dict[str, Decay | None]()
    for group in _group_sites(base, list(sites)):
        moved = _MembraneProbe(module, base, group, settled)
        with moved.tracer.trace_calls(scripts=True):
            run()
        told |= {key: moved.decay(key, sites[key]) for key in group}
    found = {key: told[key] for key in sites}
    return _unify_decays({key: decay for key, decay in found.items() if decay is not None})


def _group_sites(base: MembraneTrail, keys: list[str]) -> list[list[str]]:
    """Sites that are moved in one pass: each alone where that is little work, else a few passes.

    Neighbours are in different ones, as a spike that changes moves the membranes behind it.
    """
    work = len(keys) * sum(one.numel() for kept in base.distances.values() for one in kept)
    passes = len(keys) if work < WORK else min(PASSES, len(keys))
    return [keys[first::passes] for first in range(passes)]


def _unify_decays(found: dict[str, Decay]) -> dict[str, Decay]:
    """With one number where decays differ by rounding alone."""
    known: list[float] = []
    for key, decay in found.items():
        if decay.beta is None:
            continue
        same = next((beta for beta in known if abs(beta - decay.beta) <= EVEN / 10), None)
        if same is None:
            known.append(decay.beta)
        else:
            found[key] = replace(decay, beta=same)
    return found


class _MembraneProbe:
    """Raises the membrane of each site once."""

    def __init__(
        self, module: nn.Module, base: MembraneTrail, sites: Collection[str], settled: TraceSettings
    ) -> None:
        self.base = base
        self.trail = MembraneTrail(parts=base.parts)
        self.sites = sites
        self.met = Counter[str]()
        self.steps: dict[str, Tensor] = {}
        """By how much, 0 where it was not, in the shape of u - u_th."""
        self.tracer = Tracer(module, Observers(on_site=self.on_site), settled)

    def on_site(self, site: ThresholdSite, distance: Tensor, spikes: Tensor) -> None:
        self.trail.take(site, distance, spikes)
        key = self.base.parts.get(site.key, "")
        self.met[key] += 1
        if key in self.sites and self.met[key] == _choose_step(self.base, key) + 1:
            steps = _choose_raises(distance, alone=len(self.sites) == 1)
            if self._raise(site, steps):
                self.steps[key] = steps

    def _raise(self, site: ThresholdSite, steps: Tensor) -> bool:
        """Add to whatever form of the membrane the network goes on with."""
        done = set[int]()
        for form in site.events[-1].compared.forms:
            tensor = (self.tracer.notes.tensors.get(form) or _return_none)()
            if form.layer or form.norm or form.neuron or tensor is None:
                continue
            if self.tracer.notes.of(tensor) is not form:
                continue  # something else is in it by now, as spikes where it was compared in place
            if not tensor.is_floating_point() or 0 in tensor.stride():
                continue
            place = tensor.untyped_storage().data_ptr()
            if place not in done and tensor.numel() == steps.numel():
                done.add(place)
                with torch.no_grad(), torch._C.DisableTorchFunction():
                    tensor.data.add_(steps.view(tensor.shape).to(tensor.dtype))
        if done:
            self.tracer.comparisons.stirred.add(site.key)
        return bool(done)

    def decay(self, key: str, axis: int | None) -> Decay | None:
        moment = _choose_step(self.base, key)
        before, after = self.base.distances.get(key, []), self.trail.distances.get(key, [])
        if key not in self.steps or len(before) < moment + 2 or len(after) < moment + 2:
            return None
        if before[moment + 1].shape != after[moment + 1].shape:
            return None
        steps, spiked = self.steps[key], self.base.spikes[key][moment] > 0
        kept = (after[moment + 1].double() - before[moment + 1].double()) / steps
        if spiked.shape != kept.shape or not bool((~spiked & (steps != 0)).any()):
            return None
        silent = kept[~spiked & (steps != 0)]
        beta = float(silent.median())
        if not -EVEN <= beta <= 1 + EVEN:
            return None
        by_channel = _compute_medians(kept.masked_fill(spiked | (steps == 0), torch.nan), axis)
        even = bool(((silent - beta).abs() <= EVEN).double().mean() > 0.9)
        return Decay(
            beta=round(min(max(beta, 0.0), 1.0), PLACES) if even else None,
            by_channel=torch.tensor(beta, dtype=torch.float64) if even else by_channel,
        )


def _choose_raises(distance: Tensor, *, alone: bool) -> Tensor:
    """How far each membrane is raised: by a share of what they differ by, or by 0.

    Only some are where other neurons are moved too.
    """
    deviation = float(distance.double().std()) if distance.numel() > 1 else 0.0
    count = distance.numel() if alone else max(LEAST, int(SOME * distance.numel()))
    every = max(1, distance.numel() // count)
    steps = torch.zeros(distance.numel(), dtype=torch.float64, device=distance.device)
    steps[every // 2 :: every] = STEP * (deviation or 1.0)
    return steps.view(distance.shape)


def _return_none() -> None:
    """What is left of a tensor that nobody holds any more."""


def _choose_step(base: MembraneTrail, key: str) -> int:
    """The step after which a membrane is raised: that with the fewest spikes.

    Not the first, which may have no state yet, and not the last, behind which nothing is seen.
    """
    spikes = base.spikes.get(key, [])[1:-1]
    counts = [int(one.count_nonzero()) for one in spikes]
    return 1 + counts.index(min(counts)) if counts else 0


def _compute_medians(kept: Tensor, axis: int | None) -> Tensor | None:
    """(C,), the median of each channel, NaN of one that always spiked; None where half did."""
    if axis is None:
        return None
    rows = kept.movedim(axis, 0).flatten(1).nanmedian(1).values
    return rows if int(rows.isfinite().sum()) * 2 > len(rows) else None
