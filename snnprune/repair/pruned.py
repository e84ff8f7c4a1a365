"""What a repair is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from snnprune.calibration import Calibration
from snnprune.grams import Batches, Run
from snnprune.mask import Masks
from snnprune.network import Network
from snnprune.network.readout import Readout
from snnprune.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A network whose module holds pruned tensors, and what it was before."""

    network: Network
    dense: Mapping[str, Tensor]
    """Tensors of the network before any pruning, by state-dict key."""
    masks: Masks
    """By weight key."""
    batches: Batches
    run: Run = lambda module, x: module(x)
    readout: Callable[[], Readout] = Readout
    calibration: Calibration | None = None
    """Of the dense network."""
    choosable: Masks | None = None
    """Weights that a repair may choose; None: all. What was 0 before stays so."""
    fixed: bool = False
    """Whether the masks have a structure that no repair may change."""
    seed: int = 0
    progress: Progress = SILENT


Repair = Callable[[Pruned], Masks]
"""Mends the module in place; the masks that hold now, with as many weights in each layer."""
