"""How well a network does, by its answers and its loss, and how much it fires."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.data import GIVEN
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import (
    Batch,
    Forward,
    Reading,
    Readout,
    explain_label_errors,
    find_scores,
)
from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.samples_and_steps import StepCount
from snnprune.graph.state import use_eval_mode
from snnprune.measure import Natural
from snnprune.measure.channel_sums import ONE_CHANNEL, find_channel_axis
from snnprune.measure.sweeps import sum_channels
from snnprune.measure.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Of the neurons of one name, over samples, time steps and space."""

    channels: Natural
    """1 where nobody can say which axis of the spikes they are."""
    silent: Natural
    """Channels that never spike."""
    saturated: Natural
    """Channels that spike everywhere at every step."""
    firing_rate: float
    """Spikes per neuron per time step."""


class ActivityCount:
    """Counts spikes by channel."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.spikes: dict[str, Tensor] = {}
        """(C,) float64 on the CPU, by neuron name."""
        self.places: dict[str, int] = defaultdict(int)
        """Neurons times samples times steps of each channel."""

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        """Take what a neuron put out at one call."""
        # called with all steps or with one: what comes first is time, samples or both
        axis = find_channel_axis(self.network, neuron, torch.Size((1, *spikes.shape)))
        counts = sum_channels(spikes, ONE_CHANNEL if axis is None else axis)
        self._take(neuron, counts.cpu(), spikes.numel() // len(counts))

    def add(self, other: Mapping[str, tuple[Tensor, int]]) -> None:
        """Take in what another process counted, as it `told`."""
        for neuron, (spikes, places) in other.items():
            self._take(neuron, spikes, places)

    def list_counts(self) -> dict[str, tuple[Tensor, int]]:
        """Spikes and places, by neuron name."""
        return {neuron: (spikes, self.places[neuron]) for neuron, spikes in self.spikes.items()}

    def forget(self) -> None:
        """Begin anew."""
        self.spikes.clear()
        self.places.clear()

    def result(self) -> dict[str, Activity]:
        """By neuron name."""
        return {
            neuron: Activity(
                channels=len(spikes),
                silent=int((spikes == 0).sum()),
                saturated=int((spikes >= places).sum()),
                firing_rate=float(spikes.sum()) / (places * len(spikes)),
            )
            for neuron, (spikes, places) in self.list_counts().items()
        }

    def _take(self, neuron: str, spikes: Tensor, places: int) -> None:
        before = self.spikes.get(neuron)
        if before is not None and len(before) != len(spikes):
            # shapes that say one thing here and another there say nothing
            before, held = before.sum().reshape(1), self.places[neuron] * len(before)
            spikes, places = spikes.sum().reshape(1), places * len(spikes)
            self.places[neuron] = held
        self.spikes[neuron] = spikes if before is None else before + spikes
        self.places[neuron] += places


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Counts; percentages are derived from them."""

    samples: Natural
    labelled: Natural
    correct: Natural
    loss_sum: float
    """Sum over labelled samples of the cross-entropy, in nats; by the readouts auto and sum of its
    mean over time."""
    activity: Mapping[str, Activity] = field(default_factory=dict)
    """By neuron name."""
    readout: str = "auto"
    """How the network's output was read."""
    time_steps: Natural | None = None
    """T; None where the shapes of the spikes do not tell it."""
    answers: Natural = 0
    """How many different classes it answers, of labelled samples."""
    classes: Natural = 0
    """How many different labels they have."""
    images: str = GIVEN
    """Which images they are: `test`, `validation`, `train`, or `given`, of unknown use."""

    @property
    def firing_rates(self) -> dict[str, float]:
        """Spikes per neuron per time step, by neuron name."""
        return {name: found.firing_rate for name, found in self.activity.items()}

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
    run: Forward | None = None,
    readout: str | Reading | Readout | None = None,
    ranks: Ranks = ALONE,
    workload: Workload | None = None,
    images: str = GIVEN,
) -> Evaluation:
    """Run all batches in eval mode; `images` is which they are.

    `run` is how a batch is run, where it is not run as the network was traced. `readout` is `auto`,
    `sum`, `mean`, `last`, or a function from the network's raw output to scores (N, classes);
    without it the network's own holds, which is `auto` unless something else was said. Several
    `ranks` are given the same batches, run a share each, and all return the counts of the whole. A
    `workload` takes in what was done on the way.

    Raises:
        UsageError: there is no readout of that name.
        InputError: there is no sample, the output fits no readout, or a label is no class.
        NonFiniteError: the loss is NaN or infinite.
    """
    network = network.with_forward(run).with_readout(readout)
    tally = _EvaluationTally(network, workload)
    with use_eval_mode(network.module), tally.observe() as start:
        for number, (x, y) in enumerate(network.feed(_deal_batches(batches, ranks))):
            start()
            with explain_label_errors(x, y):
                output, samples = network.run(x), network.count_samples(x, y)
                tally.on_output(output, samples, y)
            tally.steps.on_batch(x, samples)
            if number == 0 and not ranks.first:
                tally.forget()
    tally.gather(ranks)
    if not tally.sums.samples:
        raise InputError("no samples to evaluate on", field="--data")
    return replace(tally.result(), images=images)


def _deal_batches(batches: Iterable[Batch], ranks: Ranks) -> Iterator[Batch]:
    """The batches of this rank, and before them the first: from it all learn how outputs lie."""
    return (batch for number, batch in enumerate(batches) if not number or ranks.owns(number))


@dataclass
class _EvaluationSums:
    """Over batches."""

    samples: int = 0
    labelled: int = 0
    correct: int = 0
    loss: float = 0.0
    answers: set[int] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)

    def add(self, other: _EvaluationSums) -> None:
        self.samples += other.samples
        self.labelled += other.labelled
        self.correct += other.correct
        self.loss += other.loss
        self.answers |= other.answers
        self.classes |= other.classes


class _EvaluationTally:
    """Takes what observers of a pass are told."""

    def __init__(self, network: Network, workload: Workload | None) -> None:
        self.network, self.read, self.workload = network, network.new_reader(), workload
        self.steps, self.activity = StepCount(network), ActivityCount(network)
        self.sums = _EvaluationSums()

    @contextlib.contextmanager
    def observe(self) -> Iterator[Callable[[], None]]:
        """Be told what happens in the block; gives what begins a batch."""
        work = self.workload
        if work is None:
            with observe(self.network, on_spikes=self.on_spikes) as start:
                yield start
            return

        def on_spikes(neuron: str, spikes: Tensor) -> None:
            self.on_spikes(neuron, spikes)
            work.on_spikes(neuron, spikes)

        def begin() -> None:
            start()
            work.begin()

        with observe(
            self.network,
            on_spikes=on_spikes,
            on_layer=work.on_layer,
            on_membrane=work.on_membrane,
        ) as start:
            yield begin

    def forget(self) -> None:
        """Begin anew, but for how the output lies."""
        self.sums, self.steps.moments = _EvaluationSums(), 0
        self.steps.lengths = set()
        self.activity.forget()
        if self.workload is not None:
            self.workload.clear()

    def gather(self, ranks: Ranks) -> None:
        """Take in what all ranks have been told, in their order: then all know the same."""
        if ranks.size == 1:
            return
        if self.workload is not None:
            self.workload.begin()  # no membrane is sent around
        steps = (self.steps.moments, self.steps.lengths)
        mine = (self.sums, steps, self.activity.list_counts(), self.workload)
        every = ranks.gather(mine)
        self.forget()
        for sums, (moments, lengths), activity, workload in every:
            self.sums.add(sums)
            self.activity.add(activity)
            self.steps.moments += moments
            self.steps.lengths |= lengths
            if self.workload is not None and workload is not None:
                self.workload.add(workload)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        self.steps.on_spikes(neuron, spikes)
        self.activity.on_spikes(neuron, spikes)

    def on_output(self, output: Any, samples: int, y: Tensor | None) -> None:
        self.sums.samples += samples
        if y is None:
            self.require_finite(find_scores(output, self.network.readout.how))
            return
        steps = self.read(output, samples)
        scores = steps.sum(0)
        y = check_labels(y, scores)
        self.sums.labelled += samples
        answers = scores.argmax(1)
        self.sums.correct += int((answers == y).sum())
        self.sums.answers |= set(answers.unique().tolist())
        self.sums.classes |= set(y.unique().tolist())
        self.sums.loss += float(compute_time_averaged_loss(steps, y).sum(dtype=torch.float64))
        self.require_finite(scores)
        if not math.isfinite(self.sums.loss):
            raise NonFiniteError("the network puts out NaN or infinity", field="--data")

    def require_finite(self, scores: Tensor | None) -> None:
        """Refuse an output that a number would come of.

        Raises:
            NonFiniteError: there is NaN or infinity in it.
        """
        if scores is not None and not bool(scores.isfinite().all()):
            raise NonFiniteError("the network puts out NaN or infinity", field="--data")

    def result(self) -> Evaluation:
        sums = self.sums
        return Evaluation(
            samples=sums.samples,
            labelled=sums.labelled,
            correct=sums.correct,
            loss_sum=sums.loss,
            activity=self.activity.result(),
            readout=self.network.readout.name,
            answers=len(sums.answers),
            classes=len(sums.classes),
            time_steps=self.steps.of(sums.samples),
        )


def compute_time_averaged_loss(steps: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Per sample (N,), the mean over T of the cross-entropy of logits (T, N, classes)."""
    flat = functional.cross_entropy(
        steps.flatten(0, 1),
        y.repeat(len(steps)),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return flat.unflatten(0, (len(steps), -1)).mean(0)


def check_labels(y: Tensor, scores: Tensor, *, field: str = "--data") -> Tensor:
    """The labels as int64, beside `scores` (N, classes); each must be a class.

    Raises:
        InputError: one is not, or they are not one whole number per sample.
    """
    if y.dim() != 1 or y.is_floating_point() or y.is_complex():
        raise InputError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype}",
            field=field,
            hint="expected one whole number per sample",
        )
    classes = scores.shape[1]
    y = y.to(scores.device, torch.int64)  # which alone compares with any number of classes
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise InputError(f"label {int(wrong[0])} for a network of {classes} classes", field=field)
    return y
