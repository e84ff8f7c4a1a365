"""Passes over calibration data that look at one layer and stop behind it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.batches import Batches
from snnprune.errors import InputError
from snnprune.grams.membrane import Course, course_of
from snnprune.grams.patches import patches, places
from snnprune.network import LayerCall, Network, NormCall, evaluating, watching
from snnprune.network.steps import StepCount
from snnprune.randomness import generator

ROWS_PER_INPUT, LEAST_ROWS = 16, 2**14
SPREAD = 4  # samples that rows are drawn from, for each that would do: places of one are alike


class Reached(BaseException):
    """A pass has come to where it ends. No error, and no user's `except` is to take it."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a pass over the calibration data uses the layers of a network."""

    batches: int
    calls: Counter[str]
    """Of each layer, by weight key, for one batch."""
    steps: int | None
    """T, where the spikes tell it."""


@torch.no_grad()
def usage_of(network: Network, batches: Batches) -> Usage:
    """Count the batches, and what the first of them calls.

    Raises:
        InputError: there is no batch.
    """
    calls: Counter[str] = Counter()
    steps, taken, number = StepCount(network), 0, 0
    with (
        evaluating(network.module),
        watching(
            network, on_layer=lambda key, _: calls.update([key]), on_spikes=steps.on_spikes
        ) as start,
    ):
        for x, y in network.feed(batches):
            if number == 0:
                start()
                network.run(x)
                taken = network.count_samples(x, y)
            number += 1
    if not number:
        raise InputError("no samples to calibrate on", field="--data")
    return Usage(batches=number, calls=calls, steps=steps.of(taken))


class Rows:
    """Draws rows of a layer's input: in passes of two networks over a batch, the same."""

    def __init__(
        self, network: Network, key: str, usage: Usage, *, filtered: bool, seed: int
    ) -> None:
        """With `filtered`, rows are what has come together in the membrane."""
        layer = network.layers[key]
        self.key, self.seed, self.calls = key, seed, usage.calls[key]
        self.course: Course | None = None
        if filtered:
            self.course = course_of(network, layer, calls=self.calls, steps=usage.steps)
        size = torch.Size(layer.shape[1:]).numel()
        wanted = max(LEAST_ROWS, ROWS_PER_INPUT * size)
        self.quota = -(-wanted // (usage.batches * max(1, self.calls)))
        self._ones, self._samples = 0.0, 0

    @property
    def constant(self) -> float:
        """What has come together of an input that is always 1, on average: the gain of a bias."""
        return self._ones / self._samples

    def watched(
        self, samples_of_batch: int, batch: int, see: Callable[[Tensor, LayerCall], None]
    ) -> Callable[[str, LayerCall], None]:
        """An observer that gives `see` the rows (groups, n, d) of each call, and then ends it."""
        course = self.course or _AS_IT_IS
        gathered, ones = course.begun(samples_of_batch), course.begun(samples_of_batch)
        met = 0

        def on_layer(key: str, call: LayerCall) -> None:
            nonlocal met
            if key != self.key:
                return
            met += 1
            taken = call.samples
            x, one = gathered(taken), ones(taken.new_ones(len(taken), dtype=torch.float64))
            if x is not None and one is not None:
                self._ones += float(one.sum())
                self._samples += len(one)
                see(self._some(x, call, batch, met), call)
            if met == self.calls:
                raise Reached

        return on_layer

    def _some(self, x: Tensor, call: LayerCall, batch: int, met: int) -> Tensor:
        drawn = generator(self.seed, "rows", self.key, batch, met)
        enough = SPREAD * -(-self.quota // max(1, places(x, call)))
        picked = torch.randperm(len(x), generator=drawn)[:enough]
        rows = patches(x[picked.to(x.device)], call)
        chosen = torch.randperm(rows.shape[1], generator=drawn)[: self.quota]
        return rows[:, chosen.to(rows.device)]


_AS_IT_IS = Course(calls=1, steps=None, decay=None)


def run_to(
    network: Network,
    x: Any,
    on_layer: Callable[[str, LayerCall], None],
    *,
    on_norm: Callable[[str, NormCall], None] = lambda _, __: None,
) -> None:
    """Run one batch until `on_layer` ends it; see `watching` for `on_norm`."""
    watched = watching(network, on_layer=on_layer, on_norm=on_norm)
    with watched as start, contextlib.suppress(Reached):
        start()
        network.run(x)
