"""What a step of tuning takes, found out on a few samples before it is decided on."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from snnprune.data.batches import Batches, copy_batch
from snnprune.errors import InputError
from snnprune.graph.forward import device_of
from snnprune.graph.network import Network
from snnprune.graph.surrogate import SurrogateGradients
from snnprune.measure.gradients.passes import enable_gradients, require_gradient
from snnprune.pruning.repair.tuning_images import BATCH, Piece, iter_batches
from snnprune.runtime import seed_draws

FEW = 8  # samples that it is found out on


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Of a forward and a backward pass over the samples of one step."""

    multiply_adds: int
    """Of convolutions and products of matrices."""
    unreached: tuple[str, ...] = ()
    """Weights that no gradient reaches, by key."""
    surrogate: bool = False
    """Whether comparisons had a gradient of snnprune's own."""


def measure_step(network: Network, batches: Batches) -> StepCost:
    """Run a few samples forward and back; no gradient and no state is left behind.

    Where no gradient reaches some weights, as spikes have none, it is tried again with comparisons
    that have one of snnprune's own.

    Raises:
        InputError: there are no samples, or the network cannot be differentiated.
    """
    try:
        plain = _measure_step(network, batches, surrogate=False)
        if not plain.unreached:
            return plain
    except InputError:
        plain = None
    helped = _measure_step(network, batches, surrogate=True)
    if plain is not None and len(helped.unreached) == len(plain.unreached):
        return plain
    return helped


def _measure_step(network: Network, batches: Batches, *, surrogate: bool) -> StepCost:
    """The same with comparisons as they are, or with a gradient.

    Raises:
        InputError: there are no samples, or the network cannot be differentiated.
    """
    piece = _take_few(network, batches)
    counter = FlopCounterMode(display=False)
    with (
        enable_gradients(network) as weights,
        network.reset_between_batches(),
        seed_draws(0, "tune", "cost", device=device_of(network.module)),
        counter,
    ):
        with SurrogateGradients() if surrogate else nullcontext():
            logits = network.new_reader()(network.run(copy_batch(piece.x)), piece.samples).mean(0)
        require_gradient(logits)
        try:
            found = torch.autograd.grad(
                logits.logsumexp(1).sum(), list(weights.values()), allow_unused=True
            )
        except RuntimeError as error:
            raise InputError(
                f"no gradient can be had: {str(error).splitlines()[0]}", field="--model"
            ) from error
    unreached = (key for key, slope in zip(weights, found, strict=True) if slope is None)
    done = counter.get_total_flops() // 2
    return StepCost(
        multiply_adds=done * BATCH // piece.samples,
        unreached=tuple(unreached),
        surrogate=surrogate,
    )


def _take_few(network: Network, batches: Batches) -> Piece:
    """The first samples; a whole batch where they cannot be taken out of it."""
    for piece in iter_batches(network, batches, ("cost",), size=FEW):
        return piece
    raise InputError("holds no samples", field="--data")
