"""Gram matrices of the layers of a network, one layer after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.calls import LayerCall
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.measure.second_moments.gram import Gram, GramSum
from snnprune.measure.second_moments.rows import RowSampler, Usage, count_usage, run_until


class Grams:
    """The Gram matrices of a network as it is, each taken when it is asked for.

    One is kept at a time: those of a wide network together would not fit into memory.
    """

    def __init__(
        self, network: Network, batches: Batches, *, filtered: bool, seed: int = 0
    ) -> None:
        """With `filtered`, of what the membranes have of the inputs; see `Course`."""
        self.network, self.batches = network, batches
        self.filtered, self.seed = filtered, seed
        self._usage: Usage | None = None
        self._weights: dict[str, Tensor] = {}

    def measure_usage(self) -> Usage:
        """How the network uses its layers."""
        if self._usage is None:
            self._usage = count_usage(self.network, self.batches)
        return self._usage

    @torch.no_grad()
    def of(self, key: str) -> Gram | None:
        """The Gram matrix of a layer; None for one that a pass does not use."""
        if not self.measure_usage().calls[key]:
            return None
        rows = RowSampler(
            self.network, key, self.measure_usage(), filtered=self.filtered, seed=self.seed
        )
        moments = GramSum()
        with use_eval_mode(self.network.module):
            for number, (x, y) in enumerate(self.network.feed(self.batches)):

                def see(row: Tensor, call: LayerCall) -> None:
                    moments.add(row)
                    self._keep(key, call)

                on_layer = rows.watched(self.network.count_samples(x, y), number, see)
                run_until(self.network, x, on_layer)
        return moments.gram(free=is_free(self.network, key))

    def weight(self, key: str) -> Tensor | None:
        """The weight (out, in / groups, *kernel) that a function made of the parameter.

        None where it is the parameter, and before the layer's Gram matrix was taken.
        """
        return self._weights.get(key)

    def _keep(self, key: str, call: LayerCall) -> None:
        if self.network.layers[key].shaped and key not in self._weights:
            self._weights[key] = call.weight.detach().to("cpu", copy=True)


def find_bias_key(network: Network, key: str) -> str | None:
    """The key of the bias of a layer, where it has one beside its weight."""
    name = f"{key.removesuffix('weight')}bias"
    return name if name in dict(network.module.named_parameters()) else None


def is_free(network: Network, key: str) -> bool:
    """Whether a bias, or a normalisation behind it, takes up the mean of what a layer gives."""
    return network.layers[key].normalised or find_bias_key(network, key) is not None
