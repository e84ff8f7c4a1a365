"""Repairs: what is done after pruning to what is left, without labels and without training.

To add one, write a function from `Pruned` to masks and name it in the table. Importing this package
imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snnprune.errors import InputError
from snnprune.plugins.registry import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function, is_reference

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.masks import Masks
    from snnprune.pruning.repair.pruned import Pruned, Repair


REPAIRS = Registry(
    kind="repair",
    group="snnprune.repairs",
    rows={
        "bn": RegistryRow(
            target="snnprune.pruning.repair.batchnorm:rematched",
            summary="BatchNorm statistics moved by what pruning changed on the calibration data",
        ),
        "mean": RegistryRow(
            target="snnprune.pruning.repair.layerwise:give_back_means",
            summary="the mean of each channel's current given back, in bias or BatchNorm",
        ),
        "lsq": RegistryRow(
            target="snnprune.pruning.repair.layerwise:refit",
            summary="kept weights fitted to the dense network's currents, layer by layer",
        ),
        "obs": RegistryRow(
            target="snnprune.pruning.repair.layerwise:choose_and_refit",
            summary="which weights of a layer stay is chosen anew, then as lsq",
        ),
        "tune": RegistryRow(
            target="snnprune.pruning.repair.tuning:tune",
            summary="tuned to the dense network's outputs by surrogate gradients, as weights go",
        ),
    },
)
NONE = "none"
TUNE = "tune"
"""The one that takes weights too: what comes before it prunes less far."""
WITHOUT_STATISTICS = frozenset({NONE, "bn", "mean", "lsq", TUNE})
"""Those that do not look at statistics of the dense network's neurons."""
BY_LAYER = frozenset({"mean", "lsq", "obs"})
"""Those that go through the layers and need to see how each is applied."""


def load_repairs(name: str, *, field: str = "--repair") -> tuple[Repair, ...]:
    """The repairs of a name as `bn` or `obs+tune`, in their order; none for `none`.

    Raises:
        InputError: one cannot be had.
    """
    parts = [] if name == NONE else name.split("+")
    return tuple(
        _check_result(REPAIRS.load(part, field=field), part, field=field) for part in parts
    )


def _check_result(repair: Repair, name: str, *, field: str) -> Repair:
    """`repair`, and what somebody's own gives back is what it has to be."""
    if not is_reference(name):
        return repair
    told = guard_function(repair, name, field=field)

    def call(pruned: Pruned) -> Masks:
        found = told(pruned)
        if not _are_masks(found, pruned.masks):
            raise InputError(
                f"{name} returned {_describe_value(found)}",
                field=field,
                hint="expected the masks of all weights, as many kept in each as it was given",
            )
        return found

    return call


def _are_masks(found: object, given: Masks) -> bool:
    """Whether it is a mask for each weight, that keeps as many."""
    if not isinstance(found, Mapping) or found.keys() != given.keys():
        return False
    return all(_is_like(found[key], mask) for key, mask in given.items())


def _is_like(found: Any, mask: Tensor) -> bool:
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    return (shape, dtype) == (mask.shape, mask.dtype) and int(found.sum()) == int(mask.sum())


def _describe_value(found: object) -> str:
    return "other masks" if isinstance(found, Mapping) else type(found).__name__


def require_repair(name: str, *, field: str = "--repair") -> None:
    """Refuse an unknown repair before any work is done.

    Raises:
        UsageError: it is not known, and `field` is a flag.
        InputError: likewise, in a file.
    """
    for part in [] if name == NONE else name.split("+"):
        REPAIRS.require(part, field=field)


__all__ = [
    "BY_LAYER",
    "NONE",
    "REPAIRS",
    "TUNE",
    "WITHOUT_STATISTICS",
    "load_repairs",
    "require_repair",
]
