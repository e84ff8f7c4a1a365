"""Repairs: what is done after pruning to what is left; only `tune` can be told to use labels.

To add one, write a function from `Pruned` to masks and name it in the table. Importing this package
imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snnprune.errors import InputError, error_class_for
from snnprune.measure import Natural
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function, is_reference
from snnprune.runtime import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from snnprune.data.batches import Batches
    from snnprune.graph.network import Layer, Network
    from snnprune.masks import Masks, RowBounds
    from snnprune.measure.calibration import Calibration


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
        "sbc": RegistryRow(
            target="snnprune.pruning.repair.layerwise:compensate",
            summary="kept weights make up for the others on the dense network's inputs",
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
WITHOUT_STATISTICS = frozenset({NONE, "bn", "mean", "sbc", "lsq", TUNE})
"""Those that do not look at statistics of the dense network's neurons."""
BY_LAYER = frozenset({"mean", "sbc", "lsq", "obs"})
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


FEWEST_BITS, MOST_BITS = 2, 16
"""Of the grids that kept weights may be put on; see `snnprune.pruning.repair.quantize`."""


def require_bits(bits: int, *, field: str = "--bits") -> None:
    """Refuse a grid that is none.

    Raises:
        UsageError: so many bits are outside 2 to 16, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise error_class_for(field)(
            f"{bits} is outside {FEWEST_BITS} to {MOST_BITS}",
            field=field,
            hint="chips mostly take 8 or 4",
        )


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Of the repair `tune`; see `snnprune.pruning.repair.tuning`."""

    steps: int = 960
    """Of the optimizer."""
    learning_rate: float = 0.02
    """Its peak."""
    images: int = 4096
    """Unlabelled training images, or as many as there are."""
    use_labels: bool = False
    """Whether the loss is the cross-entropy of labels and not the distance to the dense network."""
    surrogate: bool = False
    """Whether comparisons get a gradient of snnprune's own, as the network has none there."""
    augment: tuple[str, ...] = ()
    """`flip`, `shift` or both: what may be done to an image without changing what it shows."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What the closed form was going to take, told before it began."""

    seconds: float
    peak_memory: Natural | None
    """The most that the process will have had, in bytes; None on a GPU and where nobody tells."""


@dataclass(frozen=True, kw_only=True)
class TuneOutcome:
    """What tuning was done, and how far the outputs were from those of the dense network.

    A loss is the mean over the steps of some eighths of the way: t^2 KL of the softmax of the
    logits / t, or with labels the cross-entropy.
    """

    steps: Natural
    images: Natural | None
    """None: they were not held, and went by batch by batch."""
    learning_rate: float
    use_labels: bool
    surrogate: bool
    augment: tuple[str, ...]
    temperature: float | None
    """Of the logits, means over time; None with labels."""
    kept_before: Natural
    """Weights that were kept as it began."""
    kept: Natural
    loss_at_first: float
    loss_at_goal: float
    """As soon as all weights that were to go had gone."""
    loss_at_last: float


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
    rows: Mapping[str, RowBounds] = field(default_factory=dict)
    """How many weights of each output channel may be chosen, by weight key."""
    tuning: TuneSettings = field(default_factory=TuneSettings)
    tuning_batches: Batches | None = None
    """Images to tune on; None: the calibration images."""
    tell: Callable[[TuneOutcome], None] = lambda _: None
    """Is told what `tune` did."""
    tell_estimate: Callable[[CostEstimate], None] = lambda _: None
    """Is told what the closed form is going to take, where that is long."""
    seed: int = 0
    progress: Progress = SILENT


Repair = Callable[[Pruned], "Masks"]
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
    import torch

    held = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, gone in silenced.items():
            held[key].masked_fill_(gone.to(held[key].device), 0)


__all__ = [
    "BY_LAYER",
    "FEWEST_BITS",
    "MOST_BITS",
    "NONE",
    "REPAIRS",
    "TUNE",
    "WITHOUT_STATISTICS",
    "Pruned",
    "Repair",
    "TuneOutcome",
    "TuneSettings",
    "explain_unfitted",
    "load_repairs",
    "require_bits",
    "require_repair",
    "silence",
]
