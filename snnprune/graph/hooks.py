"""Watching a network run: what enters its layers, its membranes before reset, its spikes.

Once, or side by side: with several tensors on the same batches, one run after the other.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from snnprune.data.batches import copy_batch
from snnprune.errors import InputError
from snnprune.graph.calls import LayerCall, NormCall
from snnprune.graph.forward import Batch, device_of
from snnprune.graph.network import Network
from snnprune.graph.state import replace_tensors, use_eval_mode
from snnprune.graph.thresholds import ThresholdSite
from snnprune.graph.tracer import Tracer
from snnprune.graph.weight_uses import Observers, observe_nothing
from snnprune.runtime import seed_all, seed_draws

Observer = Callable[[str, Tensor], None]
"""Takes a name and a tensor that belongs to the network and must not be changed."""
LayerObserver = Callable[[str, LayerCall], None]
NormObserver = Callable[[str, NormCall], None]


@contextlib.contextmanager
def observe(
    network: Network,
    *,
    on_input: Observer = observe_nothing,
    on_layer: LayerObserver = observe_nothing,
    on_current: Observer = observe_nothing,
    on_membrane: Observer = observe_nothing,
    on_spikes: Observer = observe_nothing,
    on_norm: NormObserver = observe_nothing,
    give: Callable[[str], Tensor | None] = observe_nothing,
) -> Iterator[Callable[[], None]]:
    """Tell the observers what happens in the block; the network's output stays bit-identical.

    Yields the function that begins a batch: everything is put at rest.

    `on_input` gets a weight key and the tensor (..., C_in, *space) that enters its layer,
    `on_layer` the key and the whole call, `on_current` the key and what came of that call,
    `on_membrane` a neuron and u - u_th before reset (T, N, C, ...), `on_spikes` a neuron and
    its spikes, `on_norm` the key of a running variance and the call that is about to normalise.
    `give` gets the key of a weight and may have what its layer gives, so that it is not run.
    All hooks come off when the block ends, also by an exception.
    """
    sites = {site: n.name for n in network.neurons.values() for site in n.sites}

    def on_site(site: ThresholdSite, distance: Tensor, spikes: Tensor) -> None:
        if name := sites.get(site.index):
            on_membrane(name, distance.unsqueeze(0))
            on_spikes(name, spikes)

    observers = Observers(
        on_layer=_make_layer_observer(network, on_input, on_layer),
        on_current=_limit_to_layers(network, on_current),
        give=lambda weight: give(weight) if weight in network.layers else None,
        on_norm=on_norm,
        on_site=on_site,
    )
    tracer = Tracer(network.module, observers, network.settled)
    with contextlib.ExitStack() as stack:
        reset = stack.enter_context(network.reset_between_batches())
        redraw = stack.enter_context(_seed_draws(network))
        if sites or {on_input, on_layer, on_current, on_norm} != {observe_nothing}:
            stack.enter_context(tracer.trace_calls(scripts=bool(sites)))
        for name, neuron in network.neurons.items():
            if on_membrane is not observe_nothing:
                sink = partial(on_membrane, name)
                stack.enter_context(neuron.library.recording(neuron.module, sink))
            if on_spikes is not observe_nothing and not neuron.sites:
                hook = _make_spike_hook(partial(on_spikes, name), tracer)
                stack.callback(neuron.module.register_forward_hook(hook).remove)

        def start() -> None:
            reset()
            redraw()
            tracer.start()

        yield start


@contextlib.contextmanager
def _seed_draws(network: Network) -> Iterator[Callable[[], None]]:
    """Gives the function that seeds what the network draws in the next batch.

    So two passes over the same batches differ by the network alone.
    """
    if network.draws is None:
        yield observe_nothing
        return
    batches = itertools.count()
    with seed_draws(network.draws, "network", device=device_of(network.module)):
        yield lambda: seed_all(network.draws, "network", next(batches))


def _make_layer_observer(
    network: Network, on_input: Observer, on_layer: LayerObserver
) -> Callable[[str, LayerCall, str | None], None]:
    def tell(weight: str, call: LayerCall, _: str | None) -> None:
        if weight in network.layers:
            on_input(weight, call.input)
            on_layer(weight, call)

    return tell


def _limit_to_layers(network: Network, observer: Observer) -> Observer:
    def tell(weight: str, current: Tensor) -> None:
        if weight in network.layers:
            observer(weight, current)

    return tell


def _make_spike_hook(
    sink: Callable[[Tensor], None], tracer: Tracer
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        with tracer.apart():
            sink(output[0] if isinstance(output, tuple) else output)

    return hook


T = TypeVar("T")
Tensors = Mapping[str, Tensor]
"""By state-dict key; what is not in it stays as the module has it."""
Watched = AbstractContextManager[Callable[[], None]]
"""See `observe`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedBatch:
    """A batch on which a network is run more than once."""

    network: Network
    x: Any
    y: Tensor | None

    def count_samples(self) -> int:
        """How many there are; see `Network.count_samples`."""
        return self.network.count_samples(self.x, self.y)

    def run(
        self,
        tensors: Tensors,
        watched: Watched,
        *,
        disturb: Callable[[Any], Any] = lambda x: x,
        read: Callable[[Any], T],
    ) -> T:
        """What is `read` of the output of the network with `tensors` in it, from rest.

        It is run on a copy of the batch, since a network may work in place on what it is given, and
        on what `disturb` makes of that.
        """
        with watched as start:
            start()
            with replace_tensors(self.network.module, tensors):
                return read(self.network.run(disturb(copy_batch(self.x))))


def run_side_by_side(
    network: Network,
    batches: Iterable[Batch],
    compare: Callable[[SharedBatch], None],
) -> None:
    """Let `compare` run the network on each batch as often as it likes, in eval mode.

    Raises:
        InputError: there is no sample.
    """
    samples = 0
    with use_eval_mode(network.module):
        for x, y in network.feed(batches):
            batch = SharedBatch(network=network, x=x, y=y)
            compare(batch)
            samples += batch.count_samples()
    if not samples:
        raise InputError("no samples to compare on", field="--data")
