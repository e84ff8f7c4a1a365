"""How well a network does, and how much it fires."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError, NonFiniteError
from snnprune.network import Batch, Network, batch_length, evaluating, fed, watching
from snnprune.network.readout import Reading, Readout


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Counts; percentages are derived from them."""

    samples: int
    labelled: int
    correct: int
    loss_sum: float
    """Sum over labelled samples of the cross-entropy, in nats; by the readouts auto and sum of its
    mean over time."""
    firing_rates: Mapping[str, float] = field(default_factory=dict)
    """Spikes per neuron per time step, by neuron name."""
    readout: str = "auto"
    """How the network's output was read."""

    @property
    def accuracy(self) -> float | None:
        """Share of labelled samples classified right, in [0, 1]; None without labels."""
        return self.correct / self.labelled if self.labelled else None

    @property
    def loss(self) -> float | None:
        """Mean loss of a labelled sample; None without labels."""
        return self.loss_sum / self.labelled if self.labelled else None


@torch.no_grad()
def evaluate(
    network: Network,
    batches: Iterable[Batch],
    *,
    run: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x),
    readout: str | Reading | Readout = "auto",
) -> Evaluation:
    """Run all batches in eval mode.

    `readout` is `auto`, `sum`, `mean`, `last`, or a function from the network's raw output to
    scores (N, classes).

    Raises:
        UsageError: there is no readout of that name.
        InputError: there is no sample, the output fits no readout, or a label is no class.
        NonFiniteError: the loss is NaN or infinite.
    """
    tally = _Tally(readout if isinstance(readout, Readout) else Readout(readout))
    with (
        evaluating(network.module),
        watching(network, on_spikes=tally.on_spikes) as start,
    ):
        for x, y in fed(batches, network.module):
            start()
            tally.on_output(run(network.module, x), batch_length(x, y), y)
    if not tally.samples:
        raise InputError("no samples to evaluate on", field="--data")
    return tally.result()


def time_averaged_loss(steps: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Per sample (N,), the mean over T of the cross-entropy of logits (T, N, classes)."""
    flat = functional.cross_entropy(
        steps.flatten(0, 1),
        y.repeat(len(steps)),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return flat.unflatten(0, (len(steps), -1)).mean(0)


def _checked(y: Tensor, scores: Tensor) -> Tensor:
    """The labels as int64, beside `scores` (N, classes); each must be a class."""
    if y.dim() != 1 or y.is_floating_point() or y.is_complex():
        raise InputError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype}",
            field="--data",
            hint="expected one whole number per sample",
        )
    classes = scores.shape[1]
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise InputError(
            f"label {int(wrong[0])} for a network of {classes} classes", field="--data"
        )
    return y.to(scores.device, torch.int64)  # the user's own readout may have left the device


class _Tally:
    """Sums over batches."""

    def __init__(self, readout: Readout) -> None:
        self.readout = readout
        self.samples = self.labelled = self.correct = 0
        self.loss_sum = 0.0
        self.spikes: dict[str, float] = {}
        self.neuron_steps: dict[str, int] = {}

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        fired = float(spikes.sum(dtype=torch.float64))
        self.spikes[neuron] = self.spikes.get(neuron, 0.0) + fired
        self.neuron_steps[neuron] = self.neuron_steps.get(neuron, 0) + spikes.numel()

    def on_output(self, output: Any, samples: int, y: Tensor | None) -> None:
        self.samples += samples
        if y is None:
            return
        steps = self.readout(output, samples)
        scores = steps.sum(0)
        y = _checked(y, scores)
        self.labelled += samples
        self.correct += int((scores.argmax(1) == y).sum())
        self.loss_sum += float(time_averaged_loss(steps, y).sum(dtype=torch.float64))
        if not math.isfinite(self.loss_sum):
            raise NonFiniteError("the network puts out NaN or infinity", field="--data")

    def result(self) -> Evaluation:
        rates = {name: self.spikes[name] / self.neuron_steps[name] for name in self.spikes}
        return Evaluation(
            samples=self.samples,
            labelled=self.labelled,
            correct=self.correct,
            loss_sum=self.loss_sum,
            firing_rates=rates,
            readout=self.readout.name,
        )
