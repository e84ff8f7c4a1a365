"""Inputs as a membrane adds them up over time, without its resets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from snnprune.network import Layer, Network

BATCH_FIRST = frozenset({"sinabs"})  # libraries that fold (N, T) into one dimension, not (T, N)


@dataclass(frozen=True, kw_only=True)
class Course:
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

    def begun(self, samples: int) -> Callable[[Tensor], Tensor | None]:
        """A function to be given the input of each call of a pass, (S, C_in, *space), in turn.

        It gives what the membrane has of them: the same shape, or where only the end counts
        (samples, C_in, *space) at the last call and None before.
        """
        if self.decay is None or self.steps is None or self.steps < 2:
            return lambda x: x
        if self.calls == self.steps:
            return _StepByStep(self.decay, self.calls if self.ends else None)
        if self.calls == 1:
            whole = self.steps * samples
            return lambda x: self._at_once(x) if len(x) == whole else x
        return lambda x: x

    def _at_once(self, x: Tensor) -> Tensor:
        assert self.steps is not None
        assert self.decay is not None
        sizes = (-1, self.steps) if self.batch_first else (self.steps, -1)
        by_time = x.unflatten(0, sizes)
        axis = 1 if self.batch_first else 0
        if self.ends:
            return by_time.mean(axis)
        gathered = by_time.movedim(axis, 0).clone()
        for t in range(1, self.steps):
            gathered[t] += self.decay * gathered[t - 1]
        return gathered.movedim(0, axis).flatten(0, 1)


class _StepByStep:
    """The same for a layer that is called once for each time step."""

    def __init__(self, decay: float, ends_at: int | None) -> None:
        self.decay, self.ends_at = decay, ends_at
        self.gathered: Tensor | None = None
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor | None:
        self.gathered = x if self.gathered is None else x + self.decay * self.gathered
        self.calls += 1
        if self.ends_at is None:
            return self.gathered
        return self.gathered / self.calls if self.calls == self.ends_at else None


def course_of(network: Network, layer: Layer, *, calls: int, steps: int | None) -> Course:
    """The course of a layer's inputs: to the membrane that it drives, or to the network's output.

    What drives neurons of different or unknown decay is left as it is, and so is a layer in the
    middle of the network of which it is not known what it drives.
    """
    libraries = {neuron.library.name for neuron in network.neurons.values()}
    driven = {network.neurons[link.neuron].constants.beta for link in layer.links}
    last = layer is [*network.layers.values()][-1]
    ends = last and not layer.links and not layer.encoding
    return Course(
        calls=calls,
        steps=steps,
        decay=1.0 if ends else (driven.pop() if len(driven) == 1 else None),
        ends=ends,
        batch_first=bool(libraries & BATCH_FIRST),
    )
