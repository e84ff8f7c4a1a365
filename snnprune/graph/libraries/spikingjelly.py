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
    reshape_per_channel,
)
from snnprune.graph.libraries.spikingjelly_kernels import (
    build_without_kernels,
    choose_automatically,
    run_plain_operations,
    run_step_by_step,
)

OLD = "spikingjelly.clock_driven."  # up to 0.0.0.0.12
NONLINEAR = ("QIFNode", "EIFNode", "IzhikevichNode")  # they have no one decay


class _RecordingSurrogate(nn.Module):
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
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    if type(module).__name__ == "ILIFNode":  # counts spikes, and takes no other surrogate
        yield
        return
    # a surrogate of a class that it does not know takes a node of 2.x off its fused kernels
    children = module._modules
    held = children if "surrogate_function" in children else vars(module)
    surrogate = held["surrogate_function"]
    with run_plain_operations(module), run_step_by_step(module), choose_automatically():
        held["surrogate_function"] = _RecordingSurrogate(surrogate, sink)
        try:
            yield
        finally:
            held["surrogate_function"] = surrogate


@contextlib.contextmanager
def _enable_gradients(module: nn.Module) -> Iterator[None]:
    """In eval mode nodes of some versions run kernels that have no gradient."""
    with run_plain_operations(module), run_step_by_step(module):
        yield


def _read_constants(module: Any) -> NeuronConstants:
    threshold = module.v_threshold
    return NeuronConstants(
        threshold=reshape_per_channel(threshold) if isinstance(threshold, Tensor) else threshold,
        beta=_compute_decay(module),
        decay_input=_decays_input(module),
        reset=_find_reset(module),
    )


def _compute_decay(module: Any) -> float | None:
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
    return bool(getattr(module, "decay_input", old and _compute_decay(module) not in (None, 1.0)))


def _find_reset(module: Any) -> Reset | None:
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
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
    learning=_enable_gradients,
    plain=run_plain_operations,
    building=build_without_kernels,
    stateful_classes=(
        "spikingjelly.activation_based.base.MemoryModule",
        "spikingjelly.clock_driven.base.MemoryModule",
    ),
)
