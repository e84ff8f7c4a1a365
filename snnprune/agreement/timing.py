"""Where time is in the spikes of a neuron, told by its membrane in the same pass."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.calibration.alignment import laid_out
from snnprune.network import Network, watching


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """What a neuron put out at one call."""

    spikes: Tensor
    """A copy in the smallest type that holds it."""
    shape: tuple[int, ...] | None
    """Of the membrane, (T, N, ...); None where the spikes do not follow from one."""
    orders: tuple[bool, ...] = ()
    """Whether the samples come before time: both where the spikes fit either."""


class Recorder:
    """Keeps the spikes of one pass over one batch, and learns how those of each neuron lie."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.known: dict[str, bool] = {}
        """By neuron, whether its samples come before time."""
        self.calls: dict[str, list[Call]] = {}
        self.fires: dict[str, list[Tensor]] = {}

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Forget the batch before; at the end take from this one what it says beyond doubt."""
        self.calls, self.fires = defaultdict(list), defaultdict(list)
        yield
        for name, calls in self.calls.items():
            sure = {call.orders[0] for call in calls if len(call.orders) == 1}
            if len(sure) == 1:
                self.known.setdefault(name, sure.pop())

    def watched(self) -> AbstractContextManager[Callable[[], None]]:
        """Watch the pass that is to be kept."""
        return watching(self.network, on_membrane=self.on_membrane, on_spikes=self.on_spikes)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        constants = self.network.neurons[neuron].constants
        fires = distance >= 0 if constants.fires_at_threshold else distance > 0
        self.fires[neuron].append(fires)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        seen = self.fires.pop(neuron, [])
        fires = torch.cat(seen) if seen else None
        orders = () if fires is None else _orders(spikes, fires)
        shape = tuple(fires.shape) if fires is not None and orders else None
        self.calls[neuron].append(Call(spikes=small(spikes), shape=shape, orders=orders))

    def by_time(self, neuron: str, number: int, values: Tensor) -> Tensor:
        """What belongs to one call of a neuron as (T, n); a call that shows no time is one step."""
        shape = self.calls[neuron][number].shape
        if shape is None:
            return values.reshape(1, -1)
        return laid_out(values, shape, samples_first=self._samples_first(neuron)).flatten(1)

    def timed(self, neuron: str) -> bool:
        """Whether its steps are told apart: one call that shows no time may be several."""
        calls = self.calls[neuron]
        return len(calls) > 1 or calls[0].shape is not None

    def _samples_first(self, neuron: str) -> bool:
        """As it was seen to be; where it was silent, as others of its library are."""
        library = self.network.neurons[neuron].library.name
        alike = (
            first
            for name, first in self.known.items()
            if self.network.neurons[name].library.name == library
        )
        return self.known.get(neuron, next(alike, False))


def _orders(spikes: Tensor, fires: Tensor) -> tuple[bool, ...]:
    """Which layouts of the spikes are those that follow from the membrane."""
    if spikes.numel() != fires.numel():
        return ()
    both = (False, True) if fires.dim() > 1 else (False,)
    return tuple(
        samples_first
        for samples_first in both
        if torch.equal(laid_out(spikes, fires.shape, samples_first=samples_first) != 0, fires)
    )


def small(spikes: Tensor) -> Tensor:
    """A copy as bool where it holds 0 and 1 alone, else as it is."""
    spiked = spikes != 0
    return spiked if torch.equal(spiked.to(spikes), spikes) else spikes.detach().clone()
