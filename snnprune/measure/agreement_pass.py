"""Running networks that differ only in their tensors on the same samples, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.forward import Batch, Forward, explain_label_errors
from snnprune.graph.libraries import library_of
from snnprune.graph.network import Network
from snnprune.graph.readout import Reading, Readout
from snnprune.graph.side_by_side import SharedBatch, Tensors, run_side_by_side
from snnprune.measure.agreement import Agreement
from snnprune.measure.tally import AgreementTally, SpikeRecorder


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
            wanted = batch.run(first, recorder.watched(), read=logits)
        for tally, tensors in zip(tallies, rest, strict=True):
            with tally.batch(samples):
                made = batch.run(tensors, tally.watched(), read=logits)
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
