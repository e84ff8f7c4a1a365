"""Passes over calibration data that look at one layer and stop behind it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.call_graph import CallGraph, CallTracing
from snnprune.graph.calls import LayerCall
from snnprune.graph.forward import device_of
from snnprune.graph.network import Layer, Network
from snnprune.graph.replay import PassEnd
from snnprune.graph.samples_and_steps import StepCount
from snnprune.graph.state import use_eval_mode
from snnprune.runtime import make_generator, return_freed_memory

AT_ONCE = 1024  # rows that are there twice while they are put in order


def extract_patches(x: Tensor, call: LayerCall, picked: Tensor | None = None) -> Tensor:
    """The rows (groups, n, in / groups * kernel) that `x`, (samples, C_in, *space), gives.

    A row lies as a weight of (in / groups, *kernel) does, flattened; there is one for every place
    of the output, sample by sample. Of these `picked` are taken, all if it is None.
    """
    if call.kind == "linear":
        rows = x.unflatten(1, (call.groups, -1)).transpose(0, 1)
        return rows if picked is None else rows[:, picked]
    if call.kind.startswith("conv_transpose"):
        rows = _filter_patches(x, call)
        return rows if picked is None else rows[:, picked]
    x, first, steps = _find_windows(x, call)
    if picked is not None:
        first = first[picked]
    channels = x.shape[1]
    x = x.movedim(1, -1).reshape(-1, channels)  # whole pixels lie together
    rows = x.new_empty(len(first), channels, len(steps))
    for begin in range(0, len(first), AT_ONCE):
        some = slice(begin, begin + AT_ONCE)
        looked = (first[some].unsqueeze(1) + steps).flatten()
        rows[some] = x.index_select(0, looked).view(-1, len(steps), channels).mT
    return rows.flatten(1).unflatten(1, (call.groups, -1)).transpose(0, 1)


def _find_windows(x: Tensor, call: LayerCall) -> tuple[Tensor, Tensor, Tensor]:
    """`x` padded; for each place of the output the first pixel that it looks at, and from there on
    those of the kernel, both counted over samples and space.
    """
    space, kernel = call.space, call.weight.shape[2:]
    stride, dilation = (
        _repeat(call.geometry.get(name, 1), space) for name in ("stride", "dilation")
    )
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    padding = call.geometry.get("padding", 0)
    if padding == "same":
        around = [(whole // 2, whole - whole // 2) for whole in reach]
    else:
        sizes = _repeat(0 if padding == "valid" else padding, space)
        around = [(size, size) for size in sizes]
    x = functional.pad(x, [size for sides in reversed(around) for size in sides])
    numbers = torch.arange(len(x) * x.shape[2:].numel(), device=x.device)
    numbers = numbers.view(len(x), *x.shape[2:])
    ends = [size - far for size, far in zip(x.shape[2:], reach, strict=True)]
    places = tuple(slice(0, end, step) for end, step in zip(ends, stride, strict=True))
    window = tuple(slice(0, far + 1, step) for far, step in zip(reach, dilation, strict=True))
    return x, numbers[(slice(None), *places)].flatten(), numbers[0][window].flatten()


def _repeat(value: int | Sequence[int], times: int) -> list[int]:
    values = [value] if isinstance(value, int) else [*value]
    return values * times if len(values) == 1 else values


def _filter_patches(x: Tensor, call: LayerCall) -> Tensor:
    """The rows of all places, by running the call itself."""
    kernel = call.weight.shape[2:]
    picking = torch.eye(kernel.numel(), dtype=x.dtype, device=x.device)
    # each channel by itself through filters that pick one place of the kernel
    single = x.reshape(-1, 1, *x.shape[2:])
    seen = call.apply_weight(single, picking.view(-1, 1, *kernel), groups=1)
    by_group = seen.reshape(len(x), call.groups, -1, seen.shape[2:].numel())
    return by_group.permute(1, 0, 3, 2).flatten(1, 2)


def count_places(x: Tensor, call: LayerCall) -> int:
    """How many rows a sample of `x` gives."""
    if call.kind == "linear":
        return 1
    one = x.new_ones(1, 1, *call.weight.shape[2:])
    return call.apply_weight(x[:1, :1], one, groups=1).numel()


def compute_currents(rows: Tensor, weight: Tensor) -> Tensor:
    """What a layer makes of rows (groups, n, d), without its bias: (groups, n, out / groups)."""
    return rows @ weight.reshape(len(rows), -1, rows.shape[2]).mT


Pick = Callable[[int], Tensor]
"""From how many samples there are to the places of those that are asked for."""


class Gathering(Protocol):
    """Gives what has come together of the inputs of one call after the other."""

    def __call__(self, x: Tensor, pick: Pick | None = None) -> Tensor | None:
        """See `InputCourse.begun`."""


def _pick(x: Tensor, pick: Pick | None = None) -> Tensor:
    return x if pick is None else x[pick(len(x))]


@dataclass(frozen=True, kw_only=True)
class InputCourse:
    """How the inputs of a layer follow each other in time, and what becomes of them."""

    calls: int
    """Of the layer in one pass."""
    steps: int | None
    """T; None where it is not known."""
    decay: float | None
    """Of the membrane that it drives, per step; 1 for the sum that an output is; None for none."""
    ends: bool = False
    """Whether only what has come together at the end counts."""
    batch_first: bool = False

    def begun(self, samples: int) -> Gathering:
        """A function to be given the input of each call of a pass, (S, C_in, *space), in turn.

        It gives what the membrane has of them: the same shape, or where only the end counts
        (samples, C_in, *space) at the last call and None before. Of these some may be picked.
        """
        if self.decay is None or self.steps is None or self.steps < 2:
            return _pick
        if self.calls == self.steps:
            return _StepByStep(self.decay, self.calls if self.ends else None)
        if self.calls == 1:
            whole = self.steps * samples
            return lambda x, pick=None: (self._at_once if len(x) == whole else _pick)(x, pick)
        return _pick

    def _at_once(self, x: Tensor, pick: Pick | None) -> Tensor:
        assert self.steps is not None
        sizes = (-1, self.steps) if self.batch_first else (self.steps, -1)
        by_time = x.unflatten(0, sizes)
        axis = 1 if self.batch_first else 0
        if self.ends:
            return _pick(by_time.mean(axis), pick)
        by_time = by_time.movedim(axis, 0)
        if pick is None:
            return self._add_up(by_time.clone()).movedim(0, axis).flatten(0, 1)
        places = torch.unravel_index(pick(len(x)), x.unflatten(0, sizes).shape[:2])
        of, number = places[1 - axis].unique(return_inverse=True)
        return self._add_up(by_time[:, of])[places[axis], number]

    def _add_up(self, by_time: Tensor) -> Tensor:
        """What has come together of inputs (T, N, C_in, *space), in place."""
        assert self.decay is not None
        for t in range(1, len(by_time)):
            by_time[t] += self.decay * by_time[t - 1]
        return by_time


class _StepByStep:
    """The same for a layer that is called once for each time step."""

    def __init__(self, decay: float, ends_at: int | None) -> None:
        self.decay, self.ends_at = decay, ends_at
        self.gathered: Tensor | None = None
        self.calls = 0

    def __call__(self, x: Tensor, pick: Pick | None = None) -> Tensor | None:
        self.gathered = x if self.gathered is None else x + self.decay * self.gathered
        self.calls += 1
        if self.ends_at is None:
            return _pick(self.gathered, pick)
        return _pick(self.gathered / self.calls, pick) if self.calls == self.ends_at else None


def find_course(network: Network, layer: Layer, *, calls: int, steps: int | None) -> InputCourse:
    """The course of a layer's inputs: to the membrane that it drives, or to the network's output.

    What drives neurons of different or unknown decay is left as it is, and so is a layer in the
    middle of the network of which it is not known what it drives.
    """
    driven = {network.neurons[link.neuron].constants.beta for link in layer.links}
    last = layer is [*network.layers.values()][-1]
    ends = last and not layer.links and not layer.encoding
    return InputCourse(
        calls=calls,
        steps=steps,
        decay=1.0 if ends else (driven.pop() if len(driven) == 1 else None),
        ends=ends,
        batch_first=any(neuron.library.batch_first for neuron in network.neurons.values()),
    )


ROWS_PER_INPUT, LEAST_ROWS = 16, 2**14
BYTES = 2**27  # of the rows that are there at once
LARGE = 2**24  # bytes of an input: what the pass up to it took in pieces is not left lying about
SPREAD = 4  # samples that rows are drawn from, for each that would do: places of one are alike


@dataclass(frozen=True, kw_only=True)
class FirstBatch:
    """What the first batch called, and how long that took."""

    samples: int
    keys: tuple[str, ...]
    """The layer of each call, in order."""
    made: tuple[int, ...]
    """How many numbers each call gave; fewer entries where a call was not seen to end."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a pass over the calibration data uses the layers of a network."""

    batches: int
    calls: Counter[str]
    """Of each layer, by weight key, for one batch."""
    steps: int | None
    """T, where the spikes tell it and all batches have as many."""
    graph: CallGraph | None
    """What enters which call; None where no pass can be cut short, or batches differ in length."""
    samples: int
    """In all batches."""
    first: FirstBatch


@torch.no_grad()
def count_usage(network: Network, batches: Batches) -> Usage:
    """Count the batches, and what the first of them calls.

    Raises:
        InputError: there is no batch.
    """
    steps, tracing = StepCount(network), CallTracing(network)
    number = taken = samples = 0
    seconds = 0.0
    with use_eval_mode(network.module):
        for x, y in network.feed(batches):
            if number == 0:
                begun = time.perf_counter()
                with tracing, tracing.observe(x, steps.on_spikes) as start:
                    start()
                    network.run(x)
                if device_of(network.module).type == "cuda":
                    torch.cuda.synchronize()  # it was only asked for so far
                seconds = time.perf_counter() - begun
                taken = network.count_samples(x, y)
            here = network.count_samples(x, y)
            steps.on_batch(x, here)
            samples += here
            number += 1
    if not number:
        raise InputError("no samples to calibrate on", field="--data")
    return Usage(
        batches=number,
        calls=Counter(tracing.keys),
        steps=steps.of(taken),
        # the calls of the first batch are those of all where these are of one length
        graph=tracing.read() if len(steps.lengths) < 2 else None,
        samples=samples,
        first=FirstBatch(
            samples=taken,
            keys=tuple(tracing.keys),
            made=tuple(tracing.numbers),
            seconds=seconds,
        ),
    )


class RowSampler:
    """Draws rows of a layer's input: in passes of two networks over a batch, the same."""

    def __init__(
        self, network: Network, key: str, usage: Usage, *, filtered: bool, seed: int
    ) -> None:
        """With `filtered`, rows are what has come together in the membrane."""
        layer = network.layers[key]
        self.key, self.seed, self.calls = key, seed, usage.calls[key]
        self.course: InputCourse | None = None
        if filtered:
            self.course = find_course(network, layer, calls=self.calls, steps=usage.steps)
        size = torch.Size(layer.shape[1:]).numel()
        wanted = max(LEAST_ROWS, ROWS_PER_INPUT * size)
        self.quota = -(-wanted // (usage.batches * max(1, self.calls)))
        self.counted: list[tuple[float, int]] = []
        """Of each call: what has come together of an input that is always 1, of all its samples,
        and their number."""

    @property
    def constant(self) -> float:
        """What has come together of an input that is always 1, on average: the gain of a bias."""
        ones = 0.0
        for one, _ in self.counted:
            ones += one
        return ones / sum(samples for _, samples in self.counted)

    def watched(
        self, samples_of_batch: int, batch: int, see: Callable[[Tensor, LayerCall], None]
    ) -> Callable[[str, LayerCall], None]:
        """An observer that gives `see` the rows (groups, n, d) of each call, and then ends it.

        Those of one call come some at a time.
        """
        course = self.course or _AS_IT_IS
        gathered, ones = course.begun(samples_of_batch), course.begun(samples_of_batch)
        met = 0

        def on_layer(key: str, call: LayerCall) -> None:
            nonlocal met
            if key != self.key:
                return
            met += 1
            taken, drawn = call.samples, make_generator(self.seed, "rows", self.key, batch, met)
            places = count_places(taken, call)
            enough = SPREAD * -(-self.quota // max(1, places))
            # those of all would be as large as what a layer is given
            x = gathered(
                taken,
                lambda count: torch.randperm(count, generator=drawn)[:enough].to(taken.device),
            )
            one = ones(taken.new_ones(len(taken), dtype=torch.float64))
            if x is not None and one is not None:
                self.counted.append((float(one.sum()), len(one)))
                if taken.nbytes > LARGE:
                    return_freed_memory()
                for rows in self._draw_rows(x, call, places, drawn):
                    see(rows, call)
                    del rows  # or it would be there beside the next
            if met == self.calls:
                raise PassEnd

        return on_layer

    def _draw_rows(
        self, x: Tensor, call: LayerCall, places: int, drawn: torch.Generator
    ) -> Iterator[Tensor]:
        """Rows (groups, n, d) of the samples `x`, some at a time; each sample gives `places`."""
        chosen = torch.randperm(len(x) * places, generator=drawn)[: self.quota].to(x.device)
        size = x.element_size() * call.groups * call.weight[0].numel()
        for some in chosen.split(max(1, BYTES // size)):
            yield extract_patches(x, call, some)


_AS_IT_IS = InputCourse(calls=1, steps=None, decay=None)
