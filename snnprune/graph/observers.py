"""Who is told what happens in a forward pass, and what a pass has to know for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from snnprune.graph.calls import LayerCall, NormCall
from snnprune.graph.channels import OriginNotes
from snnprune.graph.layout import Layout
from snnprune.graph.links import TraceSettings
from snnprune.graph.origins import Origin
from snnprune.graph.parameters import ComposedWeight
from snnprune.graph.thresholds import ThresholdSite


def _observe_nothing(*_: Any) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Who is told what happens, mostly before it does.

    None may change a tensor, but `on_norm` the statistics that the call is about to read.
    """

    on_layer: Callable[[str, LayerCall, str | None], None] = _observe_nothing
    """Weight key, call, and the neuron module that the layer is a part of, if it is."""
    on_layout: Callable[[str, Layout], None] = _observe_nothing
    """Weight key, and how its parameter lies to the weight of the call that is told of next."""
    on_made: Callable[[ComposedWeight, LayerCall, Tensor], None] = _observe_nothing
    """What a weight is made of as a whole, the call that applies it, and the weight in its form
    there."""
    on_unseen: Callable[[tuple[str, ...], str], None] = _observe_nothing
    """Keys of parameters that are applied as weights where nothing can be seen, and by what."""
    on_current: Callable[[str, Tensor], None] = _observe_nothing
    """Weight key, and what has come of the call that `on_layer` was told of."""
    on_norm: Callable[[str, NormCall], None] = _observe_nothing
    """Key of the running variance, call."""
    on_drive: Callable[[str, tuple[Origin, ...], int | None], None] = _observe_nothing
    """Name of a neuron module, where its input came from, and where that has its channels."""
    on_site: Callable[[ThresholdSite, Tensor, Tensor], None] = _observe_nothing
    """Site, u - u_th and the spikes, once they are there."""
    on_compared: Callable[[ThresholdSite, Tensor], None] = _observe_nothing
    """Site, and what is compared there."""
    on_restless: Callable[[str, str], None] = _observe_nothing
    """Module, and which of `restless` is done in it."""


class TracePass:
    """What all who follow a pass share."""

    def __init__(self, module: nn.Module, observers: Observers, settled: TraceSettings) -> None:
        self.observers, self.settled = observers, settled
        self.notes = OriginNotes(module)
        self.inside: list[str] = []
        """Names of the modules that are being called."""
        self.depth = 0
        """How many neuron modules, or observers, we are inside of."""

    def start(self) -> None:
        """Begin another pass: what was met before is forgotten."""
        self.notes.start()
        self.inside.clear()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Follow nothing in the block."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
