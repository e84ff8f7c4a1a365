"""Second moments of what enters layers: all that least squares and OBS know of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.calls import LayerCall
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.measure.second_moments.rows import RowSampler, Usage, count_usage, run_until

STRIP = 1024  # inputs whose products with all later ones are taken at once


@dataclass(frozen=True, kw_only=True)
class Gram:
    """Means over the rows x that a layer met; d = in / groups * kernel."""

    second: Tensor
    """E[x x'], (groups, d, d) float64."""
    mean: Tensor
    """E[x], (groups, d) float64."""
    rows: int
    """How many rows it was taken over."""
    free: bool
    """Whether a bias or a normalisation takes up the mean of what the layer gives."""

    def compute_matrix(self) -> Tensor:
        """What a change of the weights is measured by, (groups, d, d): the covariance if `free`."""
        if not self.free:
            return self.second
        return self.second - self.mean.unsqueeze(2) * self.mean.unsqueeze(1)


class GramSum:
    """A `Gram` that grows row by row, and the moments of what those rows are to give."""

    def __init__(self) -> None:
        self.rows = 0
        self.constant = 1.0
        """What the rows have of an input that is always 1, on average; see `Rows.constant`."""
        self.second = self.cross = self.sum = self.target = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        """Take in rows (groups, n, d), and their targets (groups, n, out / groups)."""
        products = _multiply_rows(x)
        self.second = self.second.to(x.device).add_(products) if self.rows else products
        self.sum = self.sum.to(x.device) + x.sum(1, dtype=torch.float64)
        self.rows += x.shape[1]
        if y is not None:
            self.cross = self.cross.to(x.device) + x.double().mT @ y.double()
            self.target = self.target.to(x.device) + y.sum(1, dtype=torch.float64)

    def compute_mean(self) -> Tensor:
        """E[x], (groups, d)."""
        return self.sum / self.rows

    def compute_target_mean(self) -> Tensor:
        """E[y], (groups, out / groups)."""
        return self.target / self.rows

    def gram(self, *, free: bool) -> Gram:
        """What they come to."""
        return Gram(
            second=self.second / self.rows, mean=self.compute_mean(), rows=self.rows, free=free
        )

    def compute_covariance(self, *, free: bool) -> Tensor:
        """E[x y'], (groups, d, out / groups), less the product of the means if `free`."""
        second = self.cross / self.rows
        if not free:
            return second
        return second - self.compute_mean().unsqueeze(2) * self.compute_target_mean().unsqueeze(1)


def _multiply_rows(x: Tensor) -> Tensor:
    """x' x, float64, each half of which is the other's mirror image."""
    spikes = bool((x * x == x).all())
    # counts of spikes that meet are whole numbers, exact in float32 below 2^24 rows
    exact = spikes and x.shape[1] < 2**24
    x = x.to(torch.float32 if exact else torch.float64)
    product = x.new_empty(x.shape[0], x.shape[2], x.shape[2], dtype=torch.float64)
    for first in range(0, x.shape[2], STRIP):
        strip = x[..., first : first + STRIP].mT @ x[..., first:]
        product[:, first : first + STRIP, first:] = strip
        product[:, first:, first : first + STRIP] = strip.mT
    return product


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
