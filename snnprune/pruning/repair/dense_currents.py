"""What the layers of a dense network give, recorded for as many at once as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snnprune.graph.calls import LayerCall
from snnprune.graph.making import replace_tensors
from snnprune.graph.mode import use_eval_mode
from snnprune.measure.second_moments.rows import (
    PassEnd,
    RowSampler,
    Usage,
    compute_currents,
    run_until,
)
from snnprune.pruning.repair.pruned import Pruned

MEMORY = 2**29  # bytes of all currents that are held


@dataclass(frozen=True)
class BatchCurrents:
    """Of one layer and one batch."""

    calls: list[Tensor] = field(default_factory=list)
    """Of each call that gave rows, (groups, n, out / groups)."""
    counted: list[tuple[float, int]] = field(default_factory=list)
    """As `RowSampler.counted`."""


class DenseCurrents:
    """The currents of layer after layer, each asked for once and in the order of `keys`."""

    def __init__(
        self, pruned: Pruned, usage: Usage, keys: Sequence[str], *, filtered: bool
    ) -> None:
        self.pruned, self.usage, self.filtered = pruned, usage, filtered
        self._waiting = list(keys)
        self._held: dict[str, list[BatchCurrents]] = {}

    def take(self, key: str) -> list[BatchCurrents]:
        """Those of a layer, batch by batch."""
        if key not in self._held:
            self._record(self._choose_group(key))
        return self._held.pop(key)

    def new_sampler(self, key: str) -> RowSampler:
        """What draws the rows of a layer."""
        return RowSampler(
            self.pruned.network,
            key,
            self.usage,
            filtered=self.filtered,
            seed=self.pruned.seed,
        )

    def _choose_group(self, key: str) -> list[str]:
        """`key` and the layers after it, as many as fit into memory."""
        self._waiting = self._waiting[self._waiting.index(key) :]
        size, group = 0, list[str]()
        for name in self._waiting:
            layer = self.pruned.network.layers[name]
            rows = self.new_sampler(name).quota * self.usage.calls[name] * self.usage.batches
            size += rows * layer.shape[0] * self.pruned.dense[name].element_size()
            if group and size > MEMORY:
                break
            group.append(name)
        return group

    @torch.no_grad()
    def _record(self, keys: list[str]) -> None:
        """Run the dense network over all batches, up to the last of these layers."""
        network, module = self.pruned.network, self.pruned.network.module
        samplers = {key: self.new_sampler(key) for key in keys}
        self._held = {key: [] for key in keys}
        with use_eval_mode(module), replace_tensors(module, self.pruned.dense):
            for number, (x, y) in enumerate(network.feed(self.pruned.batches)):
                samples = network.count_samples(x, y)
                watchers = {}
                for key, sampler in samplers.items():
                    sampler.counted = []
                    found = BatchCurrents(counted=sampler.counted)
                    self._held[key].append(found)
                    watchers[key] = sampler.watched(samples, number, self._see(key, found))
                run_until(network, x, _watch_all(watchers))

    def _see(self, key: str, found: BatchCurrents) -> Callable[[Tensor, LayerCall], None]:
        weight = self.pruned.network.layers[key].weight_of(self.pruned.dense[key])
        return lambda rows, _: found.calls.append(compute_currents(rows, weight))


def _watch_all(
    watchers: dict[str, Callable[[str, LayerCall], None]],
) -> Callable[[str, LayerCall], None]:
    """An observer that ends the pass once each of several would have ended it."""

    def on_layer(key: str, call: LayerCall) -> None:
        if key not in watchers:
            return
        try:
            watchers[key](key, call)
        except PassEnd:
            del watchers[key]
            if not watchers:
                raise

    return on_layer
