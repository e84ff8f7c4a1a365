"""Neuron state that was saved with the weights."""

from collections.abc import Mapping

from torch import Tensor

STATES = ("mem", "syn", "syn_exc", "syn_inh", "v_mem", "i_syn")
"""Names that snnTorch and sinabs give to membranes and synaptic currents."""

SAVED = "of a batch saved with the weights"
"""What a note on them says."""


def saved_states(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The keys of membranes and currents that still have the shape of a batch.

    A single number is no such state: it is what a fresh neuron has.
    """
    return tuple(
        key
        for key, tensor in tensors.items()
        if key.rpartition(".")[2] in STATES
        and tensor.is_floating_point()
        and tensor.dim() >= 1
        and tensor.numel() > 1
    )
