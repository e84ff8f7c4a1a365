"""The table of neuron libraries: how to know their neurons and how to read a membrane.

None of them is imported: a module is recognised by the names of its classes.
"""

from torch import nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary
from snnprune.network.libraries.own import OWN
from snnprune.network.libraries.snntorch import SNNTORCH
from snnprune.network.libraries.spikingjelly import SPIKINGJELLY

LIBRARIES: tuple[NeuronLibrary, ...] = (OWN, SPIKINGJELLY, SNNTORCH)


def library_of(module: nn.Module) -> NeuronLibrary | None:
    """The library whose spiking neuron `module` is, or None if it is something else."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__}
    return next((one for one in LIBRARIES if names.intersection(one.base_classes)), None)


__all__ = ["LIBRARIES", "MembraneSink", "NeuronConstants", "NeuronLibrary", "library_of"]
