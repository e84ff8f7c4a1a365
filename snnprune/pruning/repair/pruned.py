"""What a repair is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.network import Layer, Network
from snnprune.masks import Masks
from snnprune.measure.calibration import Calibration
from snnprune.pruning.repair.settings import TuneOutcome, TuneSettings
from snnprune.runtime import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A network whose module holds pruned tensors, and what it was before."""

    network: Network
    dense: Mapping[str, Tensor]
    """Tensors of the network before any pruning, by state-dict key."""
    masks: Masks
    """By weight key."""
    batches: Batches
    calibration: Calibration | None = None
    """Of the dense network."""
    choosable: Masks | None = None
    """Weights that a repair may choose; None: all. What was 0 before stays so."""
    silenced: Mapping[str, Tensor] = field(default_factory=dict)
    """Of tensors beside the weights, True where they must stay 0, by key."""
    fixed: bool = False
    """Whether the masks have a structure that no repair may change."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many weights `tune` leaves of each, by key; where there is none, as many as there are."""
    tuning: TuneSettings = field(default_factory=TuneSettings)
    tuning_batches: Batches | None = None
    """Images to tune on; None: the calibration images."""
    tell: Callable[[TuneOutcome], None] = lambda _: None
    """Is told what `tune` did."""
    seed: int = 0
    progress: Progress = SILENT


Repair = Callable[[Pruned], Masks]
"""Mends the module in place; the masks that hold now, with as many weights in each layer."""


def explain_unfitted(network: Network, keys: Iterable[str]) -> dict[str, str]:
    """Weights that no repair goes through layer by layer, and why."""
    found = {key: _explain_layer(network, network.layers[key]) for key in keys}
    return {key: why for key, why in found.items() if why is not None}


def _explain_layer(network: Network, layer: Layer) -> str | None:
    if layer.unseen:
        return layer.unseen
    if layer.weight in network.settled.layouts:
        return "it is applied in two forms"
    return "a function of the network makes its weight" if layer.shaped else None


def silence(module: nn.Module, silenced: Mapping[str, Tensor]) -> None:
    """Put 0 where channels are gone."""
    held = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, gone in silenced.items():
            held[key].masked_fill_(gone.to(held[key].device), 0)
