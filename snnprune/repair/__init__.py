"""Repairs: what is done after pruning to what is left, without labels and without training.

To add one, write a function from `Pruned` to masks and name it in the table. Importing this package
imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.registry import Registry, Row
from snnprune.user_code import guarded

if TYPE_CHECKING:
    from snnprune.repair.pruned import Repair

REPAIRS = Registry(
    kind="repair",
    group="snnprune.repairs",
    rows={
        "bn": Row(
            target="snnprune.repair.batchnorm:rematched",
            summary="BatchNorm statistics moved by what pruning changed on the calibration data",
        ),
        "mean": Row(
            target="snnprune.repair.layerwise:give_back_means",
            summary="the mean of each channel's current given back, in bias or BatchNorm",
        ),
        "lsq": Row(
            target="snnprune.repair.layerwise:refit",
            summary="kept weights fitted to the dense network's currents, layer by layer",
        ),
        "obs": Row(
            target="snnprune.repair.layerwise:choose_and_refit",
            summary="which weights of a layer stay is chosen anew, then as lsq",
        ),
        "tune": Row(
            target="snnprune.repair.tuning:tune",
            summary="kept weights tuned to the dense network's outputs by surrogate gradients",
        ),
    },
)
NONE = "none"
BY_LAYER = frozenset({"mean", "lsq", "obs"})
"""Those that go through the layers and need to see how each is applied."""


def load_repairs(name: str, *, field: str = "--repair") -> tuple[Repair, ...]:
    """The repairs of a name as `bn` or `obs+tune`, in their order; none for `none`.

    Raises:
        InputError: one cannot be had.
    """
    parts = [] if name == NONE else name.split("+")
    return tuple(guarded(REPAIRS.load(part, field=field), part, field=field) for part in parts)


def require_repair(name: str, *, field: str = "--repair") -> None:
    """Refuse an unknown repair before any work is done.

    Raises:
        UsageError: it is not known, and `field` is a flag.
        InputError: likewise, in a file.
    """
    for part in [] if name == NONE else name.split("+"):
        REPAIRS.require(part, field=field)


__all__ = ["BY_LAYER", "NONE", "REPAIRS", "load_repairs", "require_repair"]
