"""snnprune's own LIF neuron."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from snnprune.graph.libraries.library import MembraneSink, NeuronConstants, NeuronLibrary


def _read_constants(module: Any) -> NeuronConstants:
    known = module.dynamics
    return NeuronConstants(
        threshold=known.threshold, beta=known.beta, decay_input=known.decay_input
    )


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    module.on_distance = sink
    try:
        yield
    finally:
        module.on_distance = None


def _reset(module: nn.Module) -> None:
    """Every call starts at rest."""


OWN = NeuronLibrary(
    name="snnprune",
    base_classes=("snnprune.models.lif.LIF",),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
)
