"""What really happens to membranes and spikes when weights change.

By channel, and how far a difference comes: from neuron to neuron and from step to step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from snnprune.graph.forward import Batch
from snnprune.graph.hooks import SharedBatch, observe, run_side_by_side
from snnprune.graph.network import Network
from snnprune.measure.channel_sums import find_channel_axis


@dataclass(frozen=True, kw_only=True)
class MembraneShift:
    """Of the neurons of one name, (C,) float64 each, over samples, steps and space."""

    places: Tensor
    flips: Tensor
    """Places whose spike is another."""
    clean: Tensor
    """Places at which no spike was another at an earlier step."""
    first: Tensor
    """Of these, those whose spike is another now: what Lemma 3.4 is about."""
    size: Tensor
    """Sum over the clean places of |du|."""
    reach: Tensor
    """Their largest |du| at each step, (T, C)."""

    def compute_furthest(self) -> Tensor:
        """The largest |du| of clean places, (C,)."""
        return self.reach.amax(0)

    def compute_rate(self) -> Tensor:
        """Share of all places at which a spike flips that none before it had, (C,)."""
        return self.first / self.places.clamp(min=1)

    def compute_mean(self) -> Tensor:
        """Mean |du| of clean places, (C,)."""
        return self.size / self.clean.clamp(min=1)


@dataclass
class _NeuronCourse:
    """Of one neuron, during one batch."""

    before: list[Tensor] = field(default_factory=list)
    """u - u_th of the first network, a call each, (T, N, C, ...)."""
    calls: int = 0
    steps: int = 0
    clean: Tensor | None = None


@torch.no_grad()
def measure_shifts(
    network: Network,
    tensors: Mapping[str, Tensor],
    neurons: Iterable[str],
    batches: Iterable[Batch],
    *,
    disturbed: Callable[[Any], Any] = lambda x: x,
    spreading: SpreadCollector | None = None,
) -> tuple[dict[str, MembraneShift], dict[str, Tensor]]:
    """What `tensors` in place of the network's own do to each of `neurons`, in eval mode.

    `disturbed` makes of a batch what the second of the two runs gets in its place.
    And the largest change of the currents of each layer that has its weight there, (C_out,).
    Membranes of those neurons and these currents are kept for a batch, nothing for longer.
    `spreading` is told of each step of each neuron, where one is given.

    Raises:
        InputError: there is no sample.
    """
    tally = _ShiftTally(network, set(neurons), set(tensors), spreading)

    def compare(batch: SharedBatch) -> None:
        tally.begin()
        first = observe(network, on_membrane=tally.on_first, on_current=tally.on_first_current)
        batch.run({}, first, read=_ignore_output)
        other = observe(network, on_membrane=tally.on_other, on_current=tally.on_other_current)
        batch.run(tensors, other, disturb=disturbed, read=_ignore_output)
        tally.end()

    run_side_by_side(network, batches, compare)
    return {name: _merge_steps(steps) for name, steps in tally.steps.items()}, tally.apart


def _ignore_output(_: Any) -> None:
    """Read nothing of an output: it is of no interest."""


class _ShiftTally:
    def __init__(
        self,
        network: Network,
        neurons: set[str],
        layers: set[str],
        spreading: SpreadCollector | None,
    ) -> None:
        self.network, self.neurons, self.layers = network, neurons, layers
        self.spreading = spreading
        self.steps: dict[str, list[MembraneShift]] = defaultdict(list)
        self.apart: dict[str, Tensor] = {}
        self.begin()

    def begin(self) -> None:
        """Another batch is run."""
        self.courses: dict[str, _NeuronCourse] = defaultdict(_NeuronCourse)
        self.currents: dict[str, list[Tensor]] = defaultdict(list)

    def end(self) -> None:
        """The batch has been run twice."""
        if self.spreading is not None:
            self.spreading.end()

    def on_first_current(self, key: str, current: Tensor) -> None:
        if key in self.layers:
            self.currents[key].append(current.clone())

    def on_other_current(self, key: str, current: Tensor) -> None:
        if key not in self.layers:
            return
        if self.spreading is not None:
            self.spreading.note_layer(key)
        apart = (current - self.currents[key].pop(0)).abs()
        axis = self.network.layers[key].current_axis
        largest = _reshape_to_channels(apart, axis).amax(1).double().cpu()
        self.apart[key] = torch.maximum(self.apart.get(key, largest), largest)

    def on_first(self, neuron: str, distance: Tensor) -> None:
        if neuron in self.neurons:
            self.courses[neuron].before.append(distance.clone())

    def on_other(self, neuron: str, distance: Tensor) -> None:
        if neuron not in self.neurons:
            return
        course = self.courses[neuron]
        first = course.before[course.calls]
        course.calls += 1
        if self.spreading is not None:
            self.spreading.note_call(neuron, len(distance), course.calls)
        for u, other in zip(first, distance, strict=True):
            self._step(neuron, course, u, other)

    def _step(self, neuron: str, course: _NeuronCourse, u: Tensor, other: Tensor) -> None:
        """One time step, (N, C, ...) each."""
        if course.clean is None or course.clean.shape != u.shape:
            course.clean = torch.ones_like(u, dtype=torch.bool)
        at = self.network.neurons[neuron].constants.fires_at_threshold
        flipped = (u >= 0) != (other >= 0) if at else (u > 0) != (other > 0)
        apart = (other - u).abs().where(course.clean, torch.zeros_like(u))
        axis = find_channel_axis(self.network, neuron, torch.Size((1, *u.shape)))
        if self.spreading is not None:
            self.spreading.step(neuron, flipped, apart, axis)
        found = MembraneShift(
            places=sum_by_channel(torch.ones_like(flipped), axis),
            flips=sum_by_channel(flipped, axis),
            clean=sum_by_channel(course.clean, axis),
            first=sum_by_channel(flipped & course.clean, axis),
            size=sum_by_channel(apart, axis),
            reach=_reshape_to_channels(apart, axis).amax(1).double().cpu().unsqueeze(0),
        )
        course.clean = course.clean & ~flipped
        steps = self.steps[neuron]
        if course.steps == len(steps):
            steps.append(found)
        else:
            reach = torch.maximum(steps[course.steps].reach, found.reach)
            steps[course.steps] = _sum_shifts([steps[course.steps], found], reach)
        course.steps += 1


def _merge_steps(steps: list[MembraneShift]) -> MembraneShift:
    """All steps of one neuron."""
    return _sum_shifts(steps, torch.cat([one.reach for one in steps]))


def _sum_shifts(several: list[MembraneShift], reach: Tensor) -> MembraneShift:
    names = [one.name for one in fields(MembraneShift) if one.name != "reach"]
    sums = {name: torch.stack([getattr(one, name) for one in several]).sum(0) for name in names}
    return MembraneShift(**sums, reach=reach)


def _reshape_to_channels(values: Tensor, axis: int | None) -> Tensor:
    """(C, n); one channel where nobody can say which axis they are."""
    return values.reshape(1, -1) if not axis else values.movedim(axis, 0).flatten(1)


def sum_by_channel(values: Tensor, axis: int | None) -> Tensor:
    """Sums by channel, (C,) float64; `axis` is that of channels, from the end."""
    return _reshape_to_channels(values, axis).sum(1, dtype=torch.float64).cpu()


@dataclass(frozen=True, kw_only=True)
class FlipSpread:
    """Of the neurons of one name, (T,) float64 each, over samples and space."""

    places: Tensor
    flips: Tensor
    """Places whose spike is another at this step."""
    samples: Tensor
    hit: Tensor
    """Samples in which at this step or before a spike was another, of this or of a neuron before.

    Neurons before it are those that ran before it: what it hears of is among them.
    """
    untouched: Tensor
    """Largest |du| in samples that nothing has hit before, (T, C)."""
    after: frozenset[str]
    """Changed layers that had run before it did for the first time."""


@dataclass
class _Steps:
    """Of the neurons of one name, during one batch: a row for each step."""

    places: list[int] = field(default_factory=list)
    flips: list[Tensor] = field(default_factory=list)
    hit: list[Tensor] = field(default_factory=list)
    """(N,) bool."""
    apart: list[Tensor] = field(default_factory=list)
    """Largest |du| of a sample and channel, (N, C)."""


class SpreadCollector:
    """Collects what two runs side by side show, a step of a neuron at a time."""

    def __init__(self) -> None:
        self._steps: dict[str, _Steps] = {}
        self._found: dict[str, FlipSpread] = {}
        self._even = True
        self._passed: set[str] = set()
        self._after: dict[str, frozenset[str]] = {}

    def note_layer(self, layer: str) -> None:
        """A changed layer has run."""
        self._passed.add(layer)

    def note_call(self, neuron: str, steps: int, calls: int) -> None:
        """A neuron is called for so many steps, for the so-many-th time in these samples."""
        self._after.setdefault(neuron, frozenset(self._passed))
        if steps > 1 and calls > 1:
            self._even = False  # it runs over all of time more than once

    def step(self, neuron: str, flipped: Tensor, apart: Tensor, axis: int | None) -> None:
        """`flipped` and |du| of a time step, (N, ...) each; `axis` is that of their channels."""
        steps = self._steps.setdefault(neuron, _Steps())
        steps.places.append(flipped.numel())
        steps.flips.append(flipped.sum(dtype=torch.float64))
        steps.hit.append(flipped.flatten(1).any(1))
        rows = apart.unsqueeze(1) if not axis else apart.movedim(axis, 1)
        steps.apart.append(rows.flatten(2).amax(2) if rows.dim() > 2 else rows)

    def end(self) -> None:
        """Nothing more comes of these samples."""
        steps, self._steps = self._steps, {}
        if len({len(one.hit) for one in steps.values()}) > 1:
            self._even = False  # a neuron that runs twice in a step has no row for each
            return
        touched: Tensor | None = None
        for neuron, one in steps.items():
            own = torch.stack(one.hit)
            above = torch.zeros_like(own) if touched is None else touched
            now = (own | above).cummax(0).values
            earlier = torch.cat([torch.zeros_like(now[:1]), now[:-1]])
            self._add(neuron, one, now, earlier | above)
            touched = now

    def _add(self, neuron: str, one: _Steps, hit: Tensor, before: Tensor) -> None:
        apart = torch.stack(one.apart)
        apart = apart.masked_fill(before.unsqueeze(2), 0).amax(1)
        found = FlipSpread(
            places=torch.tensor(one.places, dtype=torch.float64),
            flips=torch.stack(one.flips).cpu(),
            samples=torch.full((len(hit),), hit.shape[1], dtype=torch.float64),
            hit=hit.sum(1, dtype=torch.float64).cpu(),
            untouched=apart.double().cpu(),
            after=self._after[neuron],
        )
        known = self._found.get(neuron)
        self._found[neuron] = found if known is None else _add_spreads(known, found)

    @property
    def found(self) -> dict[str, FlipSpread]:
        """By neuron, in the order in which they ran; none where their steps cannot be paired."""
        return self._found if self._even else {}


def _add_spreads(one: FlipSpread, other: FlipSpread) -> FlipSpread:
    return FlipSpread(
        places=one.places + other.places,
        flips=one.flips + other.flips,
        samples=one.samples + other.samples,
        hit=one.hit + other.hit,
        untouched=torch.maximum(one.untouched, other.untouched),
        after=one.after,
    )
