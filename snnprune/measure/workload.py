"""The work that a network does on a sample, in NeuroBench's terms.

Yik et al. 2025, The NeuroBench framework for benchmarking neuromorphic computing algorithms and
systems, Nature Communications 16:1545 (arXiv 2304.04640). A synaptic operation is a weight that an
input is multiplied by, or where all inputs of a call are spikes (-1, 0 or 1) added. A weight or an
input that is 0 does no work; biases are not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snnprune.graph.calls import LayerCall
from snnprune.measure import Energy, Natural


@dataclass(kw_only=True)
class LayerWork:
    """Of one layer, summed over samples and time steps."""

    dense: Natural = 0
    """Operations if neither a weight nor an input were ever 0."""
    macs: Natural = 0
    """Effective multiply-accumulates: of calls with other inputs than spikes."""
    acs: Natural = 0
    """Effective accumulates: of calls whose inputs are all -1, 0 or 1."""


@dataclass(kw_only=True)
class NeuronWork:
    """Of one layer of neurons, summed over samples and time steps."""

    outputs: Natural = 0
    active: Natural = 0
    """Outputs that were not 0."""
    updates: Natural = 0
    """Membranes that changed since the step before; at the first step all."""


Counts = TypeVar("Counts", LayerWork, NeuronWork)


@dataclass(kw_only=True)
class Workload:
    """Counts what observers of a pass are told; see `snnprune.graph.hooks.observe`."""

    layers: dict[str, LayerWork] = field(default_factory=partial(defaultdict, LayerWork))
    """By weight key."""
    neurons: dict[str, NeuronWork] = field(default_factory=partial(defaultdict, NeuronWork))
    """By name."""

    def __post_init__(self) -> None:
        self._places: dict[tuple[object, ...], int] = {}
        self._before: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget all."""
        self.layers.clear()
        self.neurons.clear()
        self.begin()

    def begin(self) -> None:
        """Another batch is run, from rest."""
        self._before = {}

    def on_layer(self, key: str, call: LayerCall) -> None:
        """Count what one call of a layer comes to."""
        x, found = call.input, self.layers[key]
        active = x != 0
        done = count_operations(call, active, call.weight != 0)
        if is_made_of_spikes(x, active):
            found.acs += done
        else:
            found.macs += done
        found.dense += self._dense(call)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        """Count what neurons put out at one call."""
        found = self.neurons[neuron]
        found.outputs += spikes.numel()
        found.active += int(spikes.count_nonzero())

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        """Count the membranes (T, N, ...) that changed from step to step of one call."""
        found, before = self.neurons[neuron], self._before.get(neuron)
        if before is None or before.shape != distance[0].shape:
            found.updates += distance[0].numel()
        else:
            found.updates += int((distance[0] != before).count_nonzero())
        found.updates += int((distance[1:] != distance[:-1]).count_nonzero())
        self._before[neuron] = distance[-1].clone()

    def add(self, other: Workload) -> None:
        """Take in what another process counted."""
        _add_counts(self.layers, other.layers)
        _add_counts(self.neurons, other.neurons)

    def sum_layers(self) -> LayerWork:
        """Of all layers."""
        total: dict[str, LayerWork] = defaultdict(LayerWork)
        for layer in self.layers.values():
            _add_counts(total, {"": layer})
        return total[""]

    def sum_neurons(self) -> NeuronWork:
        """Of all neurons."""
        total: dict[str, NeuronWork] = defaultdict(NeuronWork)
        for neuron in self.neurons.values():
            _add_counts(total, {"": neuron})
        return total[""]

    def _dense(self, call: LayerCall) -> int:
        """Operations of a call without any 0, known from its shapes."""
        geometry = sorted((name, str(value)) for name, value in call.geometry.items())
        key = (call.kind, call.input.shape[1:], call.weight.shape, call.groups, *geometry)
        if call.kind == "linear":
            return call.input.numel() * call.weight.shape[0] // call.groups
        space = call.weight.dim() - 2
        if key not in self._places:
            ones = torch.ones(1, *call.input.shape[-1 - space :], device=call.input.device)
            weight = torch.ones(call.weight.shape, device=call.weight.device)
            self._places[key] = count_operations(call, ones, weight)
        return self._places[key] * call.input.shape[: -1 - space].numel()


def is_made_of_spikes(x: Tensor, active: Tensor) -> bool:
    """Whether all inputs of a call are -1, 0 or 1; `active` are those that are not 0."""
    return bool((~active | (x == 1) | (x == -1)).all())


def count_operations(call: LayerCall, active: Tensor, alive: Tensor) -> int:
    """How often an active input of a call meets a weight that is alive."""
    by_group = alive.reshape(call.groups, -1, *alive.shape[1:])
    # all outputs that read an input, added up before and not after the convolution; whole numbers
    # as these are exact in float32 below 2^24
    readers = by_group.sum(1, dtype=torch.float32)
    x = active.to(torch.float32)
    if call.kind == "linear":
        met = x.reshape(-1, x.shape[-1]).sum(0, dtype=torch.float64)
        return int((met * readers.flatten()).sum())
    space = readers.dim() - 2
    samples = x.reshape(-1, *x.shape[-1 - space :])
    return int(call.apply_weight(samples, readers).sum(dtype=torch.float64))


def measure_footprint(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, zeros and all."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def _add_counts(here: dict[str, Counts], there: Mapping[str, Counts]) -> None:
    for name, counts in there.items():
        for one in fields(counts):
            setattr(here[name], one.name, getattr(here[name], one.name) + getattr(counts, one.name))


@dataclass(frozen=True, kw_only=True)
class WorkloadRow:
    """A `Workload` for a report: counts over all samples, and the energy of one."""

    samples: Natural
    dense: Natural
    macs: Natural
    acs: Natural
    outputs: Natural
    active: Natural
    updates: Natural
    energy_pj: float
    energy_per_mac_pj: float
    energy_per_ac_pj: float
    layers: Mapping[str, LayerWork]
    neurons: Mapping[str, NeuronWork]


def describe_workload(work: Workload, samples: int, energy: Energy) -> dict[str, Any]:
    """What was done, as counts over all samples, and the energy of one sample."""
    total = work.sum_layers()
    row = WorkloadRow(
        samples=samples,
        **asdict(total),
        **asdict(work.sum_neurons()),
        energy_pj=energy.of(total) / samples,
        energy_per_mac_pj=energy.mac,
        energy_per_ac_pj=energy.ac,
        layers=dict(work.layers),
        neurons=dict(work.neurons),
    )
    return asdict(row)
