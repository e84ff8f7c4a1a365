"""Passes over the data that end in the loss of each sample."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from snnprune.data.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import device_of, explain_label_errors
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.graph.readout import OutputReader
from snnprune.measure.loss import check_labels, compute_time_averaged_loss
from snnprune.runtime import seed_draws


@contextlib.contextmanager
def enable_gradients(network: Network) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode with surrogate gradients, asked for by the weights of layers alone.

    Gives these by key. Afterwards everything asks for what it asked for before; no `.grad` is
    touched.
    """
    module = network.module
    weights = {key: module.get_parameter(key) for key in network.layers}
    with contextlib.ExitStack() as stack:
        stack.enter_context(use_eval_mode(module))
        for part in module.modules():
            stack.callback(_make_restorer(part))
        for neuron in network.neurons.values():
            if not neuron.sites:
                stack.enter_context(neuron.library.learning(neuron.module))
        for parameter in module.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        stack.enter_context(torch.enable_grad())
        yield weights


def _make_restorer(part: nn.Module) -> Callable[[], object]:
    """Puts back tensors that are attributes, as a weight that is made of others at each call."""
    attributes: dict[str, Any] = vars(part)
    before = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
    return lambda: attributes.update(before)


@contextlib.contextmanager
def replace_weights(
    weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]
) -> Iterator[None]:
    """In the block the weights have these values, by key; then they are the same tensors again."""
    before = {key: weights[key].data for key in values}
    try:
        for key, value in values.items():
            weights[key].data = value
        yield
    finally:
        for key, value in before.items():
            weights[key].data = value


@dataclass(frozen=True, kw_only=True)
class GradientPasses:
    """A network and the data that it is run on."""

    network: Network
    batches: Batches
    read: OutputReader
    """Of all passes: they are over the same batches."""
    seed: int = 0
    chosen: list[Tensor] = field(default_factory=list)
    """Labels of the batches: a later pass has those of the first, whatever it does to weights."""

    def outputs(
        self, start: Callable[[], None], fill: Callable[[Any], Any] = lambda x: x
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Logits (T, N, classes) and labels of each batch, run from rest on `fill` of it."""
        network = self.network
        for number, (x, y) in enumerate(network.feed(self.batches)):
            start()
            samples = network.count_samples(x, y)
            with seed_draws(self.seed, "gradients", number, device=device_of(network.module)):
                output = network.run(fill(x))
            with explain_label_errors(x, y):
                steps = self.read(output, samples)
            yield steps, y

    def compute_losses(self, start: Callable[[], None]) -> Iterator[Tensor]:
        """Of each batch the losses (N,) of its samples, with their graph."""
        for number, (steps, y) in enumerate(self.outputs(start)):
            if number == len(self.chosen):
                self.chosen.append(_choose_labels(steps.detach().sum(0), y))
            losses = compute_time_averaged_loss(steps, self.chosen[number])
            if not math.isfinite(float(losses.detach().sum())):
                raise NonFiniteError("the network puts out NaN or infinity", field="--data")
            require_gradient(losses)
            yield losses


class SampleMeans:
    """Means over samples of something per weight, in float64."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, key: str, found: Tensor | None) -> None:
        """Take in the sum of some samples."""
        if found is not None:
            self.sums[key] = self.sums.get(key, 0) + found.detach().double()

    def result(self) -> dict[str, Tensor]:
        """By weight key, on the CPU."""
        if not self.samples:
            raise InputError("no samples to take gradients on", field="--data")
        return {key: (found / self.samples).cpu() for key, found in self.sums.items()}


def compute_slopes(
    losses: Tensor,
    of: Sequence[Tensor] | Sequence[GradientEdge],
    *,
    weights: Tensor | None = None,
    again: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradient of the sum of `losses`, by `weights` where given, with respect to each of `of`.

    None for what does not take part. `again` keeps the graph for another call.
    """
    seeds = torch.ones_like(losses) if weights is None else weights
    try:
        with torch._C.DisableTorchFunction():  # a backward pass is not to be followed
            return torch.autograd.grad(losses, of, seeds, allow_unused=True, retain_graph=again)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"no gradient can be had: {str(error).splitlines()[0]}", field="--model"
        ) from error


def require_gradient(output: Tensor) -> None:
    """Refuse a network that cannot be differentiated at all."""
    if not output.requires_grad:
        raise InputError(
            "no gradient reaches the weights of the network",
            field="--model",
            hint="does it detach, or run without gradients? choose a criterion that needs none",
        )


def _choose_labels(scores: Tensor, y: Tensor | None) -> Tensor:
    """The labels that there are, or the class that the network chooses."""
    return scores.argmax(1) if y is None else check_labels(y, scores)
