"""sinabs: IAF, LIF and ALIF, with their recurrent and squeezed forms."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from snnprune.graph.libraries.library import (
    MembraneSink,
    NeuronConstants,
    NeuronLibrary,
    reshape_per_channel,
)


class _RecordingSpikeFunction:
    """A spike function that tells v_mem - threshold, once per time step."""

    def __init__(self, spike_fn: Any, sink: MembraneSink) -> None:
        self.spike_fn, self.sink = spike_fn, sink
        self.required_states: list[str] = spike_fn.required_states

    def apply(self, *args: Any) -> Tensor:
        """Spikes from the required states, the threshold and the surrogate gradient."""
        states = dict(zip(self.required_states, args, strict=False))
        threshold = args[len(self.required_states)]
        if "v_mem" in states:
            self.sink((states["v_mem"] - threshold).unsqueeze(0))
        spikes: Tensor = self.spike_fn.apply(*args)
        return spikes


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    spike_fn = module.spike_fn
    if spike_fn is None:  # somebody's leaky integrator, made of an LIF
        yield
        return
    module.spike_fn = _RecordingSpikeFunction(spike_fn, sink)
    try:
        yield
    finally:
        module.spike_fn = spike_fn


def _read_constants(module: Any) -> NeuronConstants:
    # what ALIF calls spike_threshold is a state
    threshold = module.b0 if hasattr(module, "b0") else module.spike_threshold
    decay = module.alpha_mem_calculated.detach()
    return NeuronConstants(
        threshold=0.0 if threshold is None else reshape_per_channel(threshold),
        beta=float(decay) if decay.numel() == 1 else None,
        decay_input=bool(module.norm_input),
        subtracts={"MembraneSubtract": True, "MembraneReset": False}.get(
            type(module.reset_fn).__name__
        ),
    )


def _reset(module: Any) -> None:
    """Set the states to 0 in the shape that they have, which a state dict may ask for.

    A batch of another size then draws its states at random from zeros.
    """
    for name, state in module.named_buffers(recurse=False):
        module.register_buffer(name, torch.zeros_like(state))


SINABS = NeuronLibrary(
    name="sinabs",
    base_classes=("sinabs.layers.lif.LIF", "sinabs.layers.alif.ALIF"),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
    other_classes=("sinabs.layers.exp_leak.ExpLeak",),
    stateful_classes=("sinabs.layers.stateful_layer.StatefulLayer",),
    saved_states=("v_mem", "i_syn", "b", "spike_threshold"),  # the last two of ALIF
    batch_first=True,
)
