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
    shape: tuple[int, ...] | None = None
    """Of the membrane, (T, N, ...); None where the spikes do not follow from one."""
    orders: tuple[bool, ...] = (False,)
    """Whether the samples come before time; both where the spikes fit either, as none do."""

    @property
    def tells(self) -> bool:
        """Whether it shows the order of a neuron."""
        return self.shape is not None and len(self.orders) == 1 and min(self.shape[:2]) > 1

    def by_time(self, values: Tensor) -> list[Tensor]:
        """What belongs to its spikes as (T, n), for each of its orders; one step if none shows."""
        if self.shape is None:
            return [values.reshape(1, -1)]
        return [
            laid_out(values, self.shape, samples_first=samples_first).flatten(1)
            for samples_first in self.orders
        ]


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
        """Forget the batch before; the pass over the next one is run in the block."""
        self.calls, self.fires = defaultdict(list), defaultdict(list)
        yield

    def watched(self) -> AbstractContextManager[Callable[[], None]]:
        """Watch the pass that is to be kept."""
        return watching(self.network, on_membrane=self.on_membrane, on_spikes=self.on_spikes)

    def on_membrane(self, neuron: str, distance: Tensor) -> None:
        constants = self.network.neurons[neuron].constants
        fires = distance >= 0 if constants.fires_at_threshold else distance > 0
        self.fires[neuron].append(fires)

    def on_spikes(self, neuron: str, spikes: Tensor) -> None:
        call = _call(spikes, self.fires.pop(neuron, []))
        self.calls[neuron].append(call)
        if call.tells:
            self.known.setdefault(neuron, call.orders[0])

    def timed(self, neuron: str) -> bool:
        """Whether its steps are told apart: one call that shows no time may be several."""
        calls = self.calls[neuron]
        return len(calls) > 1 or calls[0].shape is not None

    def samples_first(self, neuron: str) -> bool:
        """As it was seen to be; where it was silent, as others of its library are."""
        library = self.network.neurons[neuron].library.name
        alike = (
            first
            for name, first in self.known.items()
            if self.network.neurons[name].library.name == library
        )
        return self.known.get(neuron, next(alike, False))


def _call(spikes: Tensor, seen: list[Tensor]) -> Call:
    """A call whose membrane was `seen` to fire, (T, N, ...) in pieces over T."""
    fires = torch.cat(seen) if seen else None
    if fires is None or fires.numel() != spikes.numel():
        return Call(spikes=small(spikes))
    turns = fires.dim() > 1 and min(fires.shape[:2]) > 1
    orders = tuple(
        samples_first
        for samples_first in ((False, True) if turns else (False,))
        if torch.equal(laid_out(spikes, fires.shape, samples_first=samples_first) != 0, fires)
    )
    if not orders:
        return Call(spikes=small(spikes))
    return Call(spikes=small(spikes), shape=tuple(fires.shape), orders=orders)


def small(spikes: Tensor) -> Tensor:
    """A copy as bool where it holds 0 and 1 alone, else as it is."""
    spiked = spikes != 0
    return spiked if torch.equal(spiked.to(spikes), spikes) else spikes.detach().clone()
