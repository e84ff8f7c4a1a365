"""Running networks that differ only in their tensors on the same samples, batch by batch.

What they agree on is counted as it comes: spikes, outputs and answers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError
from snnprune.graph.forward import Batch, Forward, Reading, Readout, explain_label_errors
from snnprune.graph.hooks import SharedBatch, Tensors, observe, run_side_by_side
from snnprune.graph.libraries import library_of
from snnprune.graph.network import Network
from snnprune.graph.weight_uses import observe_nothing
from snnprune.measure import add_counts
from snnprune.measure.agreement import (
    Agreement,
    Answers,
    Outputs,
    SpikeAgreement,
    compare_answers,
    compare_outputs,
)
from snnprune.measure.channel_sums import reshape_time_first


def agreement(
    network: Network,
    dense: Tensors,
    other: Tensors,
    batches: Iterable[Batch],
    *,
    run: Forward | None = None,
    readout: str | Reading | Readout | None = None,
) -> Agreement:
    """How alike the network is with `dense` and with `other` in it; see `measure_agreements`.

    `run` is how a batch is run, where it is not run as the network was traced. Without `readout`
    only spikes are compared.
    """
    network = network.with_forward(run).with_readout(readout)
    return measure_agreements(network, dense, [other], batches, outputs=readout is not None)[0]


@torch.no_grad()
def measure_agreements(
    network: Network,
    dense: Tensors,
    others: Sequence[Tensors],
    batches: Iterable[Batch],
    *,
    outputs: bool = True,
) -> list[Agreement]:
    """How alike the network is with `dense` and with each of `others` in it, in eval mode.

    Each batch is run with `dense` once; its spikes alone are kept, until the others have run on it.
    The module is left holding what it held. Without `outputs` only spikes are compared.

    Raises:
        InputError: there is no sample, the output fits no readout, a label is no class, or a
            neuron spikes at another number of places in one than in the other.
        NonFiniteError: an output is NaN or infinite.
    """
    first, *rest = (_convert_tensors(network.module, tensors) for tensors in (dense, *others))
    recorder, read = SpikeRecorder(network), network.new_reader()
    tallies = [AgreementTally(recorder) for _ in rest]

    def compare(batch: SharedBatch) -> None:
        samples = batch.count_samples()

        def logits(output: Any) -> Tensor | None:
            return read(output, samples).double().mean(0) if outputs else None

        with explain_label_errors(batch.x, batch.y), recorder.batch():
            wanted = batch.run(first, recorder.observe_pass(), read=logits)
        for tally, tensors in zip(tallies, rest, strict=True):
            with tally.batch(samples):
                made = batch.run(tensors, tally.observe_pass(), read=logits)
            if wanted is not None and made is not None:
                tally.on_output(wanted, made, batch.y)

    run_side_by_side(network, batches, compare)
    return [tally.result() for tally in tallies]


def _convert_tensors(module: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
    """What the module has of `tensors`, in its types and on its device; no state of a neuron."""
    states = {
        f"{name}.{buffer}"
        for name, part in module.named_modules()
        if (library := library_of(part)) is not None
        for buffer in part._buffers
        if buffer in library.saved_states
    }
    held = module.state_dict(keep_vars=True)
    return {
        key: tensor.to(held[key])
        for key, tensor in tensors.items()
        if key in held and key not in states
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronCall:
    """What a neuron put out at one call."""

    spikes: Tensor
    """A copy in the smallest type that holds it."""
    shape: tuple[int, ...] | None = None
    """Of the membrane, (T, N, ...); None where the spikes do not follow from one."""
    orders: tuple[bool, ...] = (False,)
    """Whether the samples come before time; both where the spikes fit either, as none do."""

    @property
    def shows_order(self) -> bool:
        """Whether it shows the order of a neuron."""
        return self.shape is not None and len(self.orders) == 1 and min(self.shape[:2]) > 1

    def split_by_time(self, values: Tensor) -> list[Tensor]:
        """What belongs to its spikes as (T, n), for each of its orders; one step if none shows."""
        if self.shape is None:
            return [values.reshape(1, -1)]
        return [
            reshape_time_first(values, self.shape, samples_first=samples_first).flatten(1)
            for samples_first in self.orders
        ]


class SpikeRecorder:
    """Keeps the spikes of one pass over one batch, and learns how those of each neuron lie."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.known: dict[str, bool] = {}
        """By neuron, whether its samples come before time."""
        self.calls: dict[str, list[NeuronCall]] = {}
        self.fires: dict[str, list[Tensor]] = {}

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Forget the batch before; the pass over the next one is run in the block."""
        self.calls, self.fires = defaultdict(list), defaultdict(list)
        yield

    def observe_pass(self) -> AbstractContextManager[Callable[[], None]]:
        """Watch the pass that is to be kept."""
        return observe(self.network, on_membrane=self.on_membrane, on_spikes=self.on_spikes)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        constants = self.network.neurons[neuron].constants
        fires = distance >= 0 if constants.fires_at_threshold else distance > 0
        self.fires[neuron].append(fires)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        call = _make_call(spikes, self.fires.pop(neuron, []))
        self.calls[neuron].append(call)
        if call.shows_order:
            self.known.setdefault(neuron, call.orders[0])

    def tells_steps_apart(self, neuron: str) -> bool:
        """Whether its steps are told apart: one call that shows no time may be several."""
        calls = self.calls[neuron]
        return len(calls) > 1 or calls[0].shape is not None

    def has_samples_first(self, neuron: str) -> bool:
        """As it was seen to be; where it was silent, as others of its library are."""
        library = self.network.neurons[neuron].library.name
        alike = (
            first
            for name, first in self.known.items()
            if self.network.neurons[name].library.name == library
        )
        return self.known.get(neuron, next(alike, False))


def _make_call(spikes: Tensor, seen: list[Tensor]) -> NeuronCall:
    """A call whose membrane was `seen` to fire, (T, N, ...) in pieces over T."""
    fires = torch.cat(seen) if seen else None
    if fires is None or fires.numel() != spikes.numel():
        return NeuronCall(spikes=compact_spikes(spikes))
    turns = fires.dim() > 1 and min(fires.shape[:2]) > 1
    orders = tuple(
        samples_first
        for samples_first in ((False, True) if turns else (False,))
        if torch.equal(
            reshape_time_first(spikes, fires.shape, samples_first=samples_first) != 0, fires
        )
    )
    if not orders:
        return NeuronCall(spikes=compact_spikes(spikes))
    return NeuronCall(spikes=compact_spikes(spikes), shape=tuple(fires.shape), orders=orders)


def compact_spikes(spikes: Tensor) -> Tensor:
    """A copy as bool where it holds 0 and 1 alone, else as it is."""
    spiked = spikes != 0
    return spiked if torch.equal(spiked.to(spikes), spikes) else spikes.detach().clone()


@dataclass
class _SpikeSums:
    """Of one neuron, (2, 4, T): places, the same, spikes of the first, spikes of the other.

    As they are where time comes before the samples, and where it comes after them.
    """

    steps: Tensor = field(default_factory=lambda: torch.zeros(2, 4, 0, dtype=torch.float64))
    timed: bool = True

    def add(self, steps: Tensor, *, timed: bool) -> None:
        """Take in a batch, of as many time steps as before or not."""
        longest = max(self.steps.shape[2], steps.shape[2])
        before, now = (
            functional.pad(one, (0, longest - one.shape[2])) for one in (self.steps, steps)
        )
        self.steps = before + now
        self.timed &= timed

    def result(self, *, samples_first: bool) -> SpikeAgreement:
        places, same, first, other = self.steps[int(samples_first)].tolist()
        return SpikeAgreement(
            places=tuple(map(int, places)),
            same=tuple(map(int, same)),
            first=tuple(first),
            other=tuple(other),
            timed=self.timed,
        )


class AgreementTally:
    """Takes what the other network puts out, batch by batch."""

    def __init__(self, recorder: SpikeRecorder) -> None:
        """`recorder` has the spikes of the first network on the same batch."""
        self.recorder = recorder
        self.spikes: dict[str, _SpikeSums] = defaultdict(_SpikeSums)
        self.steps: dict[str, list[Tensor]] = {}
        self.outputs: Outputs | None = None
        self.answers: Answers | None = None
        self.classes: tuple[set[int], set[int]] = (set(), set())
        self.samples = 0

    @contextlib.contextmanager
    def batch(self, samples: int) -> Iterator[None]:
        """The other network runs on all of a batch in the block."""
        self.steps = defaultdict(list)
        yield
        self.samples += samples
        for neuron, calls in self.recorder.calls.items():
            if len(self.steps[neuron]) != len(calls):
                raise _course_error(neuron)
            steps = torch.cat(self.steps[neuron], 2)
            self.spikes[neuron].add(steps, timed=self.recorder.tells_steps_apart(neuron))

    def observe_pass(self) -> AbstractContextManager[Callable[[], None]]:
        """Watch the other network, its membranes too.

        To watch them may take other kernels; both networks are run by the same ones.
        """
        network = self.recorder.network
        return observe(network, on_membrane=observe_nothing, on_spikes=self.on_spikes)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        calls, number = self.recorder.calls[neuron], len(self.steps[neuron])
        if number >= len(calls) or calls[number].spikes.shape != spikes.shape:
            raise _course_error(neuron)
        self.steps[neuron].append(_count_spikes(calls[number], compact_spikes(spikes)))

    def on_output(self, first: Tensor, other: Tensor, y: Tensor | None) -> None:
        """Take logits (N, classes) of both, and labels (N,)."""
        self.outputs = add_counts(self.outputs, compare_outputs(first, other))
        for known, scores in zip(self.classes, (first, other), strict=True):
            known |= set(scores.argmax(1).unique().tolist())
        if y is not None:
            self.answers = add_counts(self.answers, compare_answers(first, other, y))

    def result(self) -> Agreement:
        """All batches together."""
        return Agreement(
            samples=self.samples,
            spikes={
                name: sums.result(samples_first=self.recorder.has_samples_first(name))
                for name, sums in self.spikes.items()
            },
            outputs=self.outputs,
            answers=self.answers,
            classes=(len(self.classes[0]), len(self.classes[1])),
        )


def _course_error(neuron: str) -> InputError:
    return InputError(
        f"{neuron} spikes at other places in one network than in the other",
        field="--data",
        hint="networks that run in another way on the same data cannot be compared",
    )


def _count_spikes(call: NeuronCall, other: Tensor) -> Tensor:
    """What `_SpikeSums` takes, (2, 4, T), of a call and the other network's spikes at it."""
    first = call.spikes
    values = (call.split_by_time(each) for each in (first == other, first, other))
    orders = [
        torch.stack([torch.full((len(rows[0]),), rows[0].shape[1]).double(), *map(_sum_rows, rows)])
        for rows in zip(*values, strict=True)
    ]
    return torch.stack([orders[0], orders[-1]])


def _sum_rows(rows: Tensor) -> Tensor:
    """Of each row of (T, n), float64 on the CPU."""
    if rows.dtype == torch.bool:  # counting row by row is many times faster than any sum
        return torch.stack([row.count_nonzero() for row in rows]).double().cpu()
    return rows.sum(1, dtype=torch.float64).cpu()
