"""SpikingJelly: IF, LIF, parametric LIF and the other neurons that fire through a surrogate."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary

CHARGE = "neuronal_charge_no_decay_input_reset0"  # of LIFNode of 0.0.0.0.14


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
    with _step_by_step(module) if hasattr(module, "backend") else contextlib.nullcontext():
        held["surrogate_function"] = _Recorder(surrogate, sink)
        try:
            yield
        finally:
            held["surrogate_function"] = surrogate


@contextlib.contextmanager
def _step_by_step(module: Any) -> Iterator[None]:
    """Keep a node of 0.0.0.0.14 off its kernels, without changing a bit of what it puts out.

    It leaves them in training mode, where it has another formula for one case than in its kernels:
    no decay of the input, hard reset to 0.
    """
    mode, backend = module.training, module.backend
    module.training, module.backend = True, "torch"
    shadowed = not mode and module.v_reset is not None and hasattr(module, CHARGE)
    if shadowed:
        setattr(module, CHARGE, partial(_charged_as_in_its_kernel, module))
    try:
        yield
    finally:
        if shadowed:
            delattr(module, CHARGE)  # the function of the class shows again
        module.training, module.backend = mode, backend


def _learning(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """In eval mode a node of 0.0.0.0.14 runs kernels that have no gradient."""
    return _step_by_step(module) if hasattr(module, "backend") else contextlib.nullcontext()


def _charged_as_in_its_kernel(module: Any, x: Tensor, v: Tensor, tau: float) -> Tensor:
    charged: Tensor = module.neuronal_charge_no_decay_input(x, v, 0.0, tau)
    return charged


def _constants(module: Any) -> NeuronConstants:
    return NeuronConstants(
        threshold=module.v_threshold,
        beta=_decay(module),
        decay_input=bool(getattr(module, "decay_input", False)),
    )


def _decay(module: Any) -> float | None:
    """1 - 1/tau; an integrate-and-fire neuron forgets nothing."""
    if hasattr(module, "tau"):
        return 1 - 1 / float(module.tau)
    if isinstance(getattr(module, "w", None), nn.Parameter):  # ParametricLIFNode
        return 1 - float(torch.sigmoid(module.w.detach()))
    return 1.0 if type(module).__name__ == "IFNode" else None


def _reset(module: Any) -> None:
    module.reset()


SPIKINGJELLY = NeuronLibrary(
    name="SpikingJelly",
    base_classes=(
        "spikingjelly.activation_based.neuron.base_node.BaseNode",
        "spikingjelly.activation_based.neuron.BaseNode",  # 0.0.0.0.14
    ),
    constants=_constants,
    recording=_recording,
    reset=_reset,
    learning=_learning,
    stateful_classes=("spikingjelly.activation_based.base.MemoryModule",),
)
