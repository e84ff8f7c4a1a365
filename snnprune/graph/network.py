"""A module, which of its weights drives which of its neurons, and how it is run and read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from snnprune.data.batches import Pair, count_samples
from snnprune.graph.forward import Batch, CountedForward, Forward, call_module, feed_batches
from snnprune.graph.libraries import reset_states
from snnprune.graph.links import Layer, Neuron, TraceSettings
from snnprune.graph.readout import OutputReader, Reading, Readout
from snnprune.graph.state import keep_state


def find_aliases(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """For each tensor of the state dict, by key, all keys that hold it; the first leads."""
    held = module.state_dict(keep_vars=True)
    together: dict[int, list[str]] = {}
    for key, tensor in held.items():
        if isinstance(tensor, Tensor):  # else what get_extra_state gives
            together.setdefault(id(tensor), []).append(key)
    return {key: tuple(keys) for keys in together.values() for key in keys}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module and its links. Nothing in it changes the module."""

    module: nn.Module
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """By weight key, in the order in which data meets them."""
    neurons: Mapping[str, Neuron] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    """Neurons whose spikes are put out past every layer."""
    made: Mapping[str, str] = field(default_factory=dict)
    """Weights that are made of other parameters as a whole, as by weight norm: by what."""
    kept: tuple[str, ...] = ()
    """Parameters that weights are made with and that are no weights, as positions and delays."""
    restless: Mapping[str, str] = field(default_factory=dict)
    """Modules that do in eval mode as in training, and what: see `graph.restless`."""
    draws: int | None = None
    """The seed of what it draws at random in eval mode; None where it draws nothing."""
    settled: TraceSettings = field(default_factory=TraceSettings)
    """What a pass has to know to see all of this again."""
    forward: Forward = call_module
    """How a batch is run: from the module and what is fed to it to the output."""
    readout: Readout = field(default_factory=Readout)
    """How its output is read."""

    def weight(self, key: str) -> Tensor:
        """The weight of a layer, (out, in / groups, *kernel)."""
        return self.module.get_parameter(key).detach()

    def tied(self, key: str) -> list[str]:
        """Every state-dict key that holds the same parameter as `key`, itself included."""
        parameter = self.module.get_parameter(key)
        named = self.module.named_parameters(remove_duplicate=False)
        return [name for name, other in named if other is parameter]

    def feed(self, batches: Iterable[Batch]) -> Iterator[Pair]:
        """Each batch as `run` takes it; see `graph.forward.feed_batches`.

        Raises:
            InputError: a batch has no tensor, NaN or infinity, or labels that do not fit.
        """
        return feed_batches(batches, self.module)

    def run(self, x: Any) -> Any:
        """The output for what is fed, from the state that the module is in."""
        return self.forward(self.module, x)

    def count_samples(self, x: Any, y: Tensor | None) -> int:
        """The number of samples in a batch, by the labels where there are some.

        Events have time first. The way in which it is run may tell where the samples lie.

        Raises:
            InputError: it cannot be told, or does not fit the way it is run.
        """
        if isinstance(self.forward, CountedForward):
            return self.forward.samples(x, y)
        return count_samples(x, y)

    @property
    def sample_axis(self) -> int | None:
        """Where the samples of every batch x lie; None where it is to be seen by the labels."""
        how = self.forward
        return how.axis if isinstance(how, CountedForward) and how.always else None

    def new_reader(self) -> OutputReader:
        """A reader of the outputs of one pass."""
        return OutputReader(self.readout)

    def reset(self) -> None:
        """Put what has a state at rest, as far as it is of a known library."""
        reset_states(self.module)

    @contextlib.contextmanager
    def reset_between_batches(self) -> Iterator[Callable[[], None]]:
        """Gives the function that puts everything at rest, to be called before each batch.

        Neurons of known libraries are reset as these do it. A user's own neuron keeps its membrane
        in an attribute or a buffer, or in a list, dict or object there, and nobody can know which:
        all of them are put back as they were when the block began, also when it ends.
        """
        self.reset()  # before the look: a membrane of an earlier batch is no state of rest
        restore = keep_state(self.module, self.restless)

        def reset() -> None:
            self.reset()
            restore()

        try:
            yield reset
        finally:
            reset()

    def with_forward(self, forward: Forward | None) -> Network:
        """The same, run in that way; as it is where none is given."""
        return self if forward is None else replace(self, forward=forward)

    def with_readout(self, readout: str | Reading | Readout | None) -> Network:
        """The same, its output read in that way; as it is where none is given.

        Raises:
            UsageError: there is no readout of that name.
        """
        if readout is None:
            return self
        how = readout if isinstance(readout, Readout) else Readout(readout)
        return replace(self, readout=how)
