"""snnTorch: Leaky, Synaptic, Lapicque, Alpha and their recurrent forms."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from snnprune.graph.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary

FIRING = ("fire", "fire_inhibition")  # both take the membrane potential last


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    originals = {name: getattr(module, name) for name in FIRING}
    for name, original in originals.items():
        setattr(module, name, _make_recording_fire(module, original, sink))
    try:
        yield
    finally:
        for name in originals:
            delattr(module, name)  # the method of the class shows again


def _make_recording_fire(
    module: Any, fire: Callable[..., Any], sink: MembraneSink
) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        membrane: Tensor = args[-1]
        sink((membrane - module.threshold).unsqueeze(0))
        return fire(*args)

    return call


def _read_constants(module: Any) -> NeuronConstants:
    beta = getattr(module, "beta", None)
    return NeuronConstants(
        threshold=module.threshold.detach(),
        beta=float(beta.detach()) if isinstance(beta, Tensor) and beta.numel() == 1 else None,
        fires_at_threshold=False,
        subtracts={"subtract": True, "zero": False}.get(
            str(getattr(module, "reset_mechanism", ""))
        ),
    )


def _reset(module: Any) -> None:
    if hasattr(module, "reset_mem"):  # the associative kinds keep no state
        module.reset_mem()


SNNTORCH = NeuronLibrary(
    name="snnTorch",
    base_classes=("snntorch._neurons.neurons.SpikingNeuron",),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
)
