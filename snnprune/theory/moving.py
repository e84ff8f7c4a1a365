"""What really happens to membranes and spikes when weights change, channel by channel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from snnprune.graph.forward import Batch
from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.side_by_side import SharedBatch, run_side_by_side
from snnprune.measure.alignment import find_channel_axis
from snnprune.theory.spreading import SpreadCollector


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
