"""SpikingJelly: IF, LIF, parametric LIF and the other neurons that fire through a surrogate."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.network.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary


class _Recorder(nn.Module):
    """A surrogate function that tells what it is given, u - u_th, once per time step."""

    def __init__(self, surrogate: nn.Module, sink: MembraneSink) -> None:
        super().__init__()
        self.surrogate, self.sink = surrogate, sink

    def forward(self, distance: Tensor) -> Tensor:
        self.sink(distance.unsqueeze(0))
        spikes: Tensor = self.surrogate(distance)
        return spikes


@contextlib.contextmanager
def _recording(module: Any, sink: MembraneSink) -> Iterator[None]:
    # a surrogate of a class that it does not know takes the node off its fused kernels
    surrogate = module.surrogate_function
    module.surrogate_function = _Recorder(surrogate, sink)
    try:
        yield
    finally:
        module.surrogate_function = surrogate


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
    base_classes=("spikingjelly.activation_based.neuron.base_node.BaseNode",),
    constants=_constants,
    recording=_recording,
    reset=_reset,
)
