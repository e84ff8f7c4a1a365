"""The table of neuron libraries: how to know their neurons and how to read a membrane.

None of them is imported: a module is recognised by the names of its classes.
"""

import contextlib
from collections.abc import Iterator

from torch import nn

from snnprune.graph.libraries.library import OWN, MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.graph.libraries.norse import NORSE
from snnprune.graph.libraries.sinabs import SINABS
from snnprune.graph.libraries.snntorch import SNNTORCH
from snnprune.graph.libraries.spikingjelly import SPIKINGJELLY

LIBRARIES: tuple[NeuronLibrary, ...] = (OWN, SPIKINGJELLY, SNNTORCH, SINABS, NORSE)


def library_of(module: nn.Module) -> NeuronLibrary | None:
    """The library whose spiking neuron `module` is, or None if it is something else."""
    names = _list_class_names(module)
    known = (one for one in LIBRARIES if names.intersection(one.base_classes))
    return next((one for one in known if not names.intersection(one.other_classes)), None)


def reset_states(network: nn.Module) -> None:
    """Reset what has a state in a network: neurons, and integrators that never spike."""
    for module, one in _iter_stateful(network):
        one.reset(module)


@contextlib.contextmanager
def use_plain_operations(network: nn.Module) -> Iterator[None]:
    """Run what has a state by operations of torch, whatever kernels its author chose."""
    with contextlib.ExitStack() as stack:
        for module, one in _iter_stateful(network):
            stack.enter_context(one.plain(module))
        yield


@contextlib.contextmanager
def allow_missing_kernels() -> Iterator[None]:
    """Let networks be made that ask for kernels which are not installed."""
    with contextlib.ExitStack() as stack:
        for one in LIBRARIES:
            stack.enter_context(one.building())
        yield


def _iter_stateful(network: nn.Module) -> Iterator[tuple[nn.Module, NeuronLibrary]]:
    for module in network.modules():
        names = _list_class_names(module)
        for one in LIBRARIES:
            if names.intersection(one.base_classes + one.stateful_classes):
                yield module, one


def _list_class_names(module: nn.Module) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}


__all__ = [
    "LIBRARIES",
    "MembraneSink",
    "NeuronConstants",
    "NeuronLibrary",
    "allow_missing_kernels",
    "library_of",
    "reset_states",
    "use_plain_operations",
]
