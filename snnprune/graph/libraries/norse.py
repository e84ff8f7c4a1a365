"""norse: IAF, LIF, LSNN and its other neurons without weights of their own.

The recurrent ones hold weights, to be seen as layers: they are known by their comparison with the
threshold, like neurons in somebody's code. Refractory ones hold spikes back, so that these do not
follow from the membrane: they are known in order to be left out.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.libraries.library import (
    MembraneSink,
    NeuronConstants,
    NeuronLibrary,
    reshape_per_channel,
)

SPIKING = {
    "iaf": ("IAFCell", "IAF"),
    "izhikevich": ("IzhikevichCell", "Izhikevich"),
    "lif": ("LIFCell", "LIF"),
    "lif_adex": ("LIFAdExCell", "LIFAdEx"),
    "lif_box": ("LIFBoxCell",),
    "lif_ex": ("LIFExCell", "LIFEx"),
    "lsnn": ("LSNNCell", "LSNN"),
}
REFRACTORY = {
    "lif_adex_refrac": (
        "LIFAdExRefracCell",
        "LIFAdExRefracRecurrentCell",
        "LIFAdExRefracRecurrent",
    ),
    "lif_mc_refrac": ("LIFMCRefracRecurrentCell",),
    "lif_refrac": ("LIFRefracCell", "LIFRefracRecurrentCell", "LIFRefracRecurrent"),
}


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    activation = module.activation
    fires = "threshold" in getattr(activation, "__globals__", ())
    if hasattr(module.p, "rho_reset") or not fires:  # refractory, or a step of somebody's own
        yield
        return
    module.activation = _make_recording_step(activation, sink)
    try:
        yield
    finally:
        module.activation = activation


def _make_recording_step(activation: FunctionType, sink: MembraneSink) -> FunctionType:
    """The same step, with a `threshold` of its own that tells what it is given, v - v_th."""
    known = activation.__globals__
    fire: Callable[..., Tensor] = known["threshold"]

    def threshold(distance: Tensor, *args: Any) -> Tensor:
        sink(distance.unsqueeze(0))
        return fire(distance, *args)

    return FunctionType(
        activation.__code__,
        {**known, "threshold": threshold},
        activation.__name__,
        activation.__defaults__,
        activation.__closure__,
    )


def _read_constants(module: Any) -> NeuronConstants:
    p = getattr(module.p, "lif", None) or getattr(module.p, "lif_adex", None) or module.p
    leaks = hasattr(p, "tau_mem_inv")
    return NeuronConstants(
        threshold=reshape_per_channel(p.v_th),
        beta=_compute_decay(p, module.dt),
        decay_input=leaks,
        fires_at_threshold=False,
    )


def _compute_decay(p: Any, dt: float) -> float | None:
    """1 - dt / tau_mem, where the membrane does nothing else by itself."""
    if type(p).__name__ == "IAFParameters":
        return 1.0
    if not hasattr(p, "tau_mem_inv") or hasattr(p, "delta_T"):
        return None
    rate = torch.as_tensor(p.tau_mem_inv).detach()
    return 1 - dt * float(rate) if rate.numel() == 1 else None


def _reset(module: nn.Module) -> None:
    """Its state is an argument, and where it is none the neuron starts at rest."""


NORSE = NeuronLibrary(
    name="norse",
    base_classes=tuple(
        f"norse.torch.module.{file}.{name}"
        for file, names in (SPIKING | REFRACTORY).items()
        for name in names
    ),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
)
