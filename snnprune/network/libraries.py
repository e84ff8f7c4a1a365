"""The table of neuron libraries: how to know their neurons and how to read a membrane.

None of them is imported: a module is recognised by the names of its classes.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

MembraneSink = Callable[[Tensor], None]
"""Takes the membrane potential before reset, (T, N, ...); a single step comes as T = 1."""


@dataclass(frozen=True, kw_only=True)
class NeuronConstants:
    """What a criterion must know of a neuron; a constant that is not known is None."""

    threshold: float | Tensor
    beta: float | None = None
    """Decay of the membrane per time step."""
    decay_input: bool = False
    """Whether the input is scaled by 1 - beta."""


@dataclass(frozen=True, kw_only=True)
class NeuronLibrary:
    """One library's neurons."""

    name: str
    base_class: str
    """Full name of the class that all its neurons inherit from."""
    constants: Callable[[nn.Module], NeuronConstants]
    recording: Callable[[nn.Module, MembraneSink], AbstractContextManager[None]]
    """While open, every forward pass of the module hands its membrane to the sink."""
    reset: Callable[[nn.Module], None]


def library_of(module: nn.Module) -> NeuronLibrary | None:
    """The library whose spiking neuron `module` is, or None if it is something else."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}
    return next((library for library in LIBRARIES if library.base_class in names), None)


@contextlib.contextmanager
def _recording_own(module: nn.Module, sink: MembraneSink) -> Iterator[None]:
    module.on_membrane = sink  # type: ignore[assignment]
    try:
        yield
    finally:
        module.on_membrane = None  # type: ignore[assignment]


def _own_constants(module: nn.Module) -> NeuronConstants:
    from snnprune.models.lif import LIF

    assert isinstance(module, LIF)
    dynamics = module.dynamics
    return NeuronConstants(
        threshold=dynamics.threshold, beta=dynamics.beta, decay_input=dynamics.decay_input
    )


def _nothing_to_reset(module: nn.Module) -> None:
    """Our own neurons start every call at rest."""


LIBRARIES: tuple[NeuronLibrary, ...] = (
    NeuronLibrary(
        name="snnprune",
        base_class="snnprune.models.lif.LIF",
        constants=_own_constants,
        recording=_recording_own,
        reset=_nothing_to_reset,
    ),
)
