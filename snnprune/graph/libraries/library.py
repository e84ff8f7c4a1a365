"""What is known of a neuron library, a row of the table; and the row of snnprune's own LIF."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MembraneSink = Callable[[Tensor], None]
"""Takes u - u_th before reset, (T, N, ...); a single step comes as T = 1.

The distance to the threshold, because its sign is exact: u itself, added up again from a distance,
could round to the other side.
"""


@dataclass(frozen=True, kw_only=True)
class NeuronConstants:
    """What a criterion must know of a neuron; a constant that is not known is None."""

    threshold: float | Tensor
    beta: float | None = None
    """Decay of the membrane per time step."""
    decay_input: bool = False
    """Whether the input is scaled by 1 - beta."""
    fires_at_threshold: bool = True
    """Whether u = u_th is a spike."""
    subtracts: bool | None = None
    """Whether a spike subtracts the threshold, or sets the membrane to 0; None for other resets."""


def _leave_as_is(_: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class NeuronLibrary:
    """One library's neurons."""

    name: str
    base_classes: tuple[str, ...]
    """Full names of the classes that its neurons inherit from, one for each of its versions."""
    constants: Callable[[nn.Module], NeuronConstants]
    recording: Callable[[nn.Module, MembraneSink], AbstractContextManager[None]]
    """While open, every forward pass of the module hands its membrane to the sink."""
    reset: Callable[[nn.Module], None]
    """Puts a module at rest, before each batch."""
    learning: Callable[[nn.Module], AbstractContextManager[None]] = _leave_as_is
    """While open, the module has its surrogate gradient in eval mode too."""
    plain: Callable[[nn.Module], AbstractContextManager[None]] = _leave_as_is
    """While open, the module runs no kernel that hides its membrane or needs another machine."""
    building: Callable[[], AbstractContextManager[None]] = nullcontext
    """While open, modules that ask for such a kernel can be made where it is not installed."""
    other_classes: tuple[str, ...] = ()
    """Full names of classes that inherit from those, and are no neurons."""
    stateful_classes: tuple[str, ...] = ()
    """Full names of classes that `reset` puts at rest too, spiking or not."""
    saved_states: tuple[str, ...] = ()
    """Names of buffers that hold a state, in the shape of a batch, and are in state dicts."""
    batch_first: bool = False
    """Whether its networks fold samples and steps into one dimension as (N, T), not as (T, N)."""


def reshape_per_channel(threshold: Tensor | float) -> Tensor:
    """() or (C,) from any shape that a membrane (N, C, ...) takes part in; without gradient.

    Where thresholds differ within a channel it is their mean over everything.
    """
    known = torch.as_tensor(threshold).detach()
    channels = [length for length in known.shape if length > 1]
    return known.reshape(channels) if len(channels) < 2 else known.mean()


def _read_constants(module: Any) -> NeuronConstants:
    known = module.dynamics
    return NeuronConstants(
        threshold=known.threshold,
        beta=known.beta,
        decay_input=known.decay_input,
        subtracts=known.reset == "soft" if known.v_reset == known.v_rest == 0 else None,
    )


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    module.on_distance = sink
    try:
        yield
    finally:
        module.on_distance = None


def _reset(module: nn.Module) -> None:
    """Every call starts at rest."""


OWN = NeuronLibrary(
    name="snnprune",
    base_classes=("snnprune.models.lif.LIF",),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
)
