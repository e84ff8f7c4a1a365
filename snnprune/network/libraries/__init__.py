"""The table of neuron libraries: how to know their neurons and how to read a membrane.

None of them is imported: a module is recognised by the names of its classes.
"""

from torch import nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.network.libraries.norse import NORSE
from snnprune.network.libraries.own import OWN
from snnprune.network.libraries.sinabs import SINABS
from snnprune.network.libraries.snntorch import SNNTORCH
from snnprune.network.libraries.spikingjelly import SPIKINGJELLY

LIBRARIES: tuple[NeuronLibrary, ...] = (OWN, SPIKINGJELLY, SNNTORCH, SINABS, NORSE)


def library_of(module: nn.Module) -> NeuronLibrary | None:
    """The library whose spiking neuron `module` is, or None if it is something else."""
    names = _names(module)
    known = (one for one in LIBRARIES if names.intersection(one.base_classes))
    return next((one for one in known if not names.intersection(one.other_classes)), None)


def put_at_rest(network: nn.Module) -> None:
    """Reset what has a state in a network: neurons, and integrators that never spike."""
    for module in network.modules():
        names = _names(module)
        for one in LIBRARIES:
            if names.intersection(one.base_classes + one.stateful_classes):
                one.reset(module)


def _names(module: nn.Module) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}


__all__ = [
    "LIBRARIES",
    "MembraneSink",
    "NeuronConstants",
    "NeuronLibrary",
    "library_of",
    "put_at_rest",
]
