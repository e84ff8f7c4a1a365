"""How often each weight of a network is used: the synaptic operations that it is worth.

Counted as `snnprune.measure.workload` counts, so that the uses of all weights that are not 0 add up
to the operations of the network to the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snnprune.graph.calls import LayerCall
from snnprune.graph.forward import Batch
from snnprune.graph.hooks import SharedBatch, observe, run_side_by_side
from snnprune.graph.network import Network
from snnprune.measure import Energy
from snnprune.measure.workload import is_made_of_spikes


@dataclass(kw_only=True)
class WeightUses:
    """Inputs that are not 0 and meet a weight, summed over samples and time steps.

    Tensors (groups, in / groups, *kernel) in float64 by weight key: all output channels of a group
    read the same inputs, so that their weights are used equally often.
    """

    macs: dict[str, Tensor] = field(default_factory=dict)
    """In calls with other inputs than spikes."""
    acs: dict[str, Tensor] = field(default_factory=dict)
    """In calls whose inputs are all -1, 0 or 1."""
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    """Of each weight (out, in / groups, *kernel)."""
    samples: int = 0

    def on_layer(self, key: str, call: LayerCall) -> None:
        """Count what one call of a layer comes to; an observer of `observe`."""
        active = call.input != 0
        found = count_uses(call, active).cpu()
        held = self.acs if is_made_of_spikes(call.input, active) else self.macs
        self.shapes[key] = call.weight.shape
        held[key] = held[key] + found if key in held else found

    def count(self, key: str) -> Tensor:
        """Operations of each weight of a layer and a sample, (out, in / groups, *kernel)."""
        return self.price(key, Energy(mac=1.0, ac=1.0))

    def price(self, key: str, energy: Energy) -> Tensor:
        """What the operations of each weight of a layer take of a sample, in pJ."""
        shape = self.shapes[key]
        kinds = ((self.macs, energy.mac), (self.acs, energy.ac))
        total = sum((held[key] * cost for held, cost in kinds if key in held), torch.tensor(0.0))
        by_group = (total / self.samples).unsqueeze(1)
        return by_group.expand(-1, shape[0] // len(total), *shape[1:]).flatten(0, 1)


def count_uses(call: LayerCall, active: Tensor) -> Tensor:
    """How many active inputs of a call each weight meets, (groups, in / groups, *kernel) float64.

    The slope of the sum of all outputs by each weight, of one output channel for each group.
    """
    groups, (_, inputs, *kernel) = call.groups, call.weight.shape
    if call.kind == "linear":
        met = active.reshape(-1, active.shape[-1]).sum(0, dtype=torch.float64)
        return met.view(groups, inputs)
    # added up over samples first: an output is linear in them
    x = active.reshape(-1, *active.shape[active.dim() - 1 - len(kernel) :])
    together = x.sum(0, keepdim=True, dtype=torch.float64)
    with torch.enable_grad():
        one = together.new_zeros(groups, inputs, *kernel, requires_grad=True)
        (slope,) = torch.autograd.grad(call.apply_weight(together, one).sum(), one)
    return slope


def measure_uses(network: Network, batches: Iterable[Batch]) -> WeightUses:
    """The uses of each weight of the network as it is now, in one pass.

    Raises:
        InputError: there is no sample.
    """
    found = WeightUses()

    def look(batch: SharedBatch) -> None:
        watched = observe(network, on_layer=found.on_layer)
        batch.run({}, watched, read=lambda _: None)
        found.samples += batch.count_samples()

    run_side_by_side(network, batches, look)
    return found


def predict_operations(uses: WeightUses, alive: Mapping[str, Tensor]) -> dict[str, float]:
    """Synaptic operations of each layer and a sample, were only weights gone and no rate changed.

    `alive` are masks (out, in / groups, *kernel) of the weights that are not 0, by key.
    """
    return {
        key: float((uses.count(key) * mask.cpu()).sum())
        for key, mask in alive.items()
        if key in uses.shapes
    }
