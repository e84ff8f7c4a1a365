"""Passes over the data that end in the loss of each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from snnprune.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.loss import checked_labels, time_averaged_loss
from snnprune.network import Network
from snnprune.network.feeding import device_of, telling_of_labels
from snnprune.network.readout import OutputReader
from snnprune.randomness import drawing


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A network and the data that it is run on."""

    network: Network
    batches: Batches
    read: OutputReader
    """Of all passes: they are over the same batches."""
    seed: int = 0
    chosen: list[Tensor] = field(default_factory=list)
    """Labels of the batches: a later pass has those of the first, whatever it does to weights."""

    def outputs(
        self, start: Callable[[], None], fill: Callable[[Any], Any] = lambda x: x
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Logits (T, N, classes) and labels of each batch, run from rest on `fill` of it."""
        network = self.network
        for number, (x, y) in enumerate(network.feed(self.batches)):
            start()
            samples = network.count_samples(x, y)
            with drawing(self.seed, "gradients", number, device=device_of(network.module)):
                output = network.run(fill(x))
            with telling_of_labels(x, y):
                steps = self.read(output, samples)
            yield steps, y

    def losses(self, start: Callable[[], None]) -> Iterator[Tensor]:
        """Of each batch the losses (N,) of its samples, with their graph."""
        for number, (steps, y) in enumerate(self.outputs(start)):
            if number == len(self.chosen):
                self.chosen.append(_labels(steps.detach().sum(0), y))
            losses = time_averaged_loss(steps, self.chosen[number])
            if not math.isfinite(float(losses.detach().sum())):
                raise NonFiniteError("the network puts out NaN or infinity", field="--data")
            require_gradient(losses)
            yield losses


class Means:
    """Means over samples of something per weight, in float64."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, key: str, found: Tensor | None) -> None:
        """Take in the sum of some samples."""
        if found is not None:
            self.sums[key] = self.sums.get(key, 0) + found.detach().double()

    def result(self) -> dict[str, Tensor]:
        """By weight key, on the CPU."""
        if not self.samples:
            raise InputError("no samples to take gradients on", field="--data")
        return {key: (found / self.samples).cpu() for key, found in self.sums.items()}


def slopes(
    losses: Tensor,
    of: Sequence[Tensor] | Sequence[GradientEdge],
    *,
    weights: Tensor | None = None,
    again: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradient of the sum of `losses`, by `weights` where given, with respect to each of `of`.

    None for what does not take part. `again` keeps the graph for another call.
    """
    seeds = torch.ones_like(losses) if weights is None else weights
    try:
        with torch._C.DisableTorchFunction():  # a backward pass is not to be followed
            return torch.autograd.grad(losses, of, seeds, allow_unused=True, retain_graph=again)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"no gradient can be had: {str(error).splitlines()[0]}", field="--model"
        ) from error


def require_gradient(output: Tensor) -> None:
    """Refuse a network that cannot be differentiated at all."""
    if not output.requires_grad:
        raise InputError(
            "no gradient reaches the weights of the network",
            field="--model",
            hint="does it detach, or run without gradients? choose a criterion that needs none",
        )


def _labels(scores: Tensor, y: Tensor | None) -> Tensor:
    """The labels that there are, or the class that the network chooses."""
    return scores.argmax(1) if y is None else checked_labels(y, scores)
