"""SpikingJelly: IF, LIF, parametric LIF and the other neurons that fire through a surrogate."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.libraries.library import (
    MembraneSink,
    NeuronConstants,
    NeuronLibrary,
    Reset,
    per_channel,
)
from snnprune.graph.libraries.spikingjelly_kernels import automatic, building, plain, step_by_step

OLD = "spikingjelly.clock_driven."  # up to 0.0.0.0.12
NONLINEAR = ("QIFNode", "EIFNode", "IzhikevichNode")  # they have no one decay


class _Recorder(nn.Module):
    """A surrogate function that tells what it is given, u - u_th, once per time step."""

    spiking = False  # ComplementaryLIFNode would use a step function of its own instead

    def __init__(self, surrogate: nn.Module, sink: MembraneSink) -> None:
        super().__init__()
        self.surrogate, self.sink = surrogate, sink

    def forward(self, distance: Tensor) -> Tensor:
        self.sink(distance.unsqueeze(0))
        spikes: Tensor = self.surrogate(distance)
        return spikes


@contextlib.contextmanager
def _recording(module: Any, sink: MembraneSink) -> Iterator[None]:
    if type(module).__name__ == "ILIFNode":  # counts spikes, and takes no other surrogate
        yield
        return
    # a surrogate of a class that it does not know takes a node of 2.x off its fused kernels
    children = module._modules
    held = children if "surrogate_function" in children else vars(module)
    surrogate = held["surrogate_function"]
    with plain(module), step_by_step(module), automatic():
        held["surrogate_function"] = _Recorder(surrogate, sink)
        try:
            yield
        finally:
            held["surrogate_function"] = surrogate


@contextlib.contextmanager
def _learning(module: nn.Module) -> Iterator[None]:
    """In eval mode nodes of some versions run kernels that have no gradient."""
    with plain(module), step_by_step(module):
        yield


def _constants(module: Any) -> NeuronConstants:
    threshold = module.v_threshold
    return NeuronConstants(
        threshold=per_channel(threshold) if isinstance(threshold, Tensor) else threshold,
        beta=_decay(module),
        decay_input=_decays_input(module),
        reset=_reset_by_a_spike(module),
    )


def _decay(module: Any) -> float | None:
    """1 - 1/tau; an integrate-and-fire neuron forgets nothing."""
    if {base.__name__ for base in type(module).__mro__}.intersection(NONLINEAR):
        return None
    if hasattr(module, "tau"):
        return 1 - 1 / float(module.tau)
    if isinstance(getattr(module, "w", None), nn.Parameter):  # ParametricLIFNode
        return 1 - float(torch.sigmoid(module.w.detach()))
    return 1.0 if type(module).__name__ in ("IFNode", "MultiStepIFNode") else None


def _decays_input(module: Any) -> bool:
    """Before 0.0.0.0.10 nothing else could be chosen."""
    old = any(base.__module__.startswith(OLD) for base in type(module).__mro__)
    return bool(getattr(module, "decay_input", old and _decay(module) not in (None, 1.0)))


def _reset_by_a_spike(module: Any) -> Reset | None:
    if not hasattr(module, "v_reset"):
        return None
    return "soft" if module.v_reset is None else "hard"


def _reset(module: Any) -> None:
    module.reset()


SPIKINGJELLY = NeuronLibrary(
    name="SpikingJelly",
    base_classes=(
        "spikingjelly.activation_based.neuron.base_node.BaseNode",
        "spikingjelly.activation_based.neuron.integrate_and_fire.ActivationAwareIFNode",
        "spikingjelly.activation_based.neuron.BaseNode",  # 0.0.0.0.14
        "spikingjelly.clock_driven.neuron.BaseNode",  # up to 0.0.0.0.12
    ),
    constants=_constants,
    recording=_recording,
    reset=_reset,
    learning=_learning,
    plain=plain,
    building=building,
    stateful_classes=(
        "spikingjelly.activation_based.base.MemoryModule",
        "spikingjelly.clock_driven.base.MemoryModule",
    ),
)
