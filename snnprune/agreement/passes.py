"""Running networks that differ only in their tensors on the same samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.agreement.counts import Agreement
from snnprune.agreement.tally import Tally
from snnprune.agreement.timing import Recorder
from snnprune.batches import copied
from snnprune.errors import InputError
from snnprune.network import Batch, Network, evaluating, holding
from snnprune.network.feeding import telling_of_labels
from snnprune.network.libraries import library_of
from snnprune.network.readout import Reading, Readout
from snnprune.network.running import Forward

Watched = AbstractContextManager[Callable[[], None]]
Tensors = Mapping[str, Tensor]
"""By state-dict key; what is not in it stays as the module has it."""


def agreement(
    network: Network,
    dense: Tensors,
    other: Tensors,
    batches: Iterable[Batch],
    *,
    run: Forward | None = None,
    readout: str | Reading | Readout | None = None,
) -> Agreement:
    """How alike the network is with `dense` and with `other` in it; see `agreements`.

    `run` is how a batch is run, where it is not run as the network was traced. Without `readout`
    only spikes are compared.
    """
    network = network.with_forward(run).with_readout(readout)
    return agreements(network, dense, [other], batches, outputs=readout is not None)[0]


@torch.no_grad()
def agreements(
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
    first, *rest = (_fitted(network.module, tensors) for tensors in (dense, *others))
    recorder, read = Recorder(network), network.new_reader()
    tallies = [Tally(recorder) for _ in rest]

    def output(tensors: Tensors, x: Any, samples: int, watched: Watched) -> Tensor | None:
        with watched as start:
            start()
            with holding(network.module, tensors):
                # a copy, since a network may work in place on what it is given
                made = network.run(copied(x))
                return read(made, samples).double().mean(0) if outputs else None

    with evaluating(network.module):
        for x, y in network.feed(batches):
            samples = network.count_samples(x, y)
            with telling_of_labels(x, y), recorder.batch():
                wanted = output(first, x, samples, recorder.watched())
            for tally, tensors in zip(tallies, rest, strict=True):
                with tally.batch(samples):
                    made = output(tensors, x, samples, tally.watched())
                if wanted is not None and made is not None:
                    tally.on_output(wanted, made, y)
    if any(not tally.samples for tally in tallies):
        raise InputError("no samples to compare on", field="--data")
    return [tally.result() for tally in tallies]


def _fitted(module: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
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
