"""Allocations: how a number of weights to prune is shared between layers.

To add one, write a function from `Candidates` and a count to masks, and name it in the table.
Importing this package imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from snnprune.errors import Note, UsageError, suggest_share
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.masks import Masks


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything that may be pruned; all by weight key."""

    scores: Mapping[str, Tensor]
    """Larger = keep; -inf for weights that are pruned already."""
    magnitudes: Mapping[str, Tensor]
    """|w| in float32 or float64, also the tie-break."""
    criterion: str
    by_magnitude: frozenset[str] = frozenset()
    """Layers that the criterion could not score and magnitude did."""
    alive: Masks | None = None
    """What is not pruned already; None: what is not 0."""
    scale: Literal["linear", "log"] = "linear"
    """Whether scores are logarithms, those of layers in `by_magnitude` too."""
    degree: int = 1
    """The power of |w| with which a score grows; 1 for layers in `by_magnitude`."""
    flips: Mapping[str, Tensor] = field(default_factory=dict)
    """e_ij of `compute_flip_energies`, (out, in / groups, *kernel), where it is known."""
    places: Mapping[str, Tensor] = field(default_factory=dict)
    """Where each value of a parameter is in its weight, flat, where it lies otherwise."""

    @property
    def keys(self) -> list[str]:
        """The layers."""
        return list(self.magnitudes)

    def pool(self, *, by_magnitude: bool) -> list[str]:
        """The layers that were scored by magnitude for want of better, or all others."""
        return [key for key in self.keys if (key in self.by_magnitude) == by_magnitude]

    def kept(self, key: str) -> Tensor:
        """The mask of what is not pruned already."""
        return self.magnitudes[key] != 0 if self.alive is None else self.alive[key]

    def count_pruned_already(self, keys: list[str]) -> int:
        """How many weights of these layers are pruned already."""
        return sum(int((~self.kept(key)).sum()) for key in keys)

    def zeros(self, keys: list[str]) -> int:
        """`count_pruned_already`, by its name of version 0.1, which works for one more release."""
        message = "Candidates.zeros is count_pruned_already now; the old name works for one release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.count_pruned_already(keys)

    def size(self, keys: list[str]) -> int:
        """How many weights these layers have."""
        return sum(self.magnitudes[key].numel() for key in keys)

    def order_alive(self, key: str) -> Tensor:
        """Flat places of what is alive, in the order in which it goes, as `lowest` has it."""
        alive = self.kept(key).flatten().nonzero().squeeze(1)
        by_size = alive[self.magnitudes[key].flatten()[alive].argsort(stable=True)]
        return by_size[self.scores[key].flatten()[by_size].argsort(stable=True)]

    def map_to_weight(self, key: str, queue: Tensor) -> Tensor:
        """The same flat places in the weight (out, in / groups, *kernel)."""
        return self.places[key].to(queue.device)[queue] if key in self.places else queue

    def without(self, key: str, places: Tensor) -> Tensor:
        """The mask that also prunes these flat places."""
        kept = self.kept(key)
        mask = kept.flatten().clone()
        mask[places] = False
        return mask.view(kept.shape)

    def lowest(self, keys: list[str], count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` lowest-scored weights of these layers together.

        Among them are those that are pruned already, which go first.
        """
        return self._make_masks({key: self.scores[key] for key in keys}, count)

    def prune_lowest_magnitudes(self, count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` smallest weights of all layers together."""
        return self._make_masks({key: self._compute_magnitudes(key) for key in self.keys}, count)

    def _make_masks(self, scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        import torch

        from snnprune.masks import select_lowest

        if not scores:
            return {}
        flat = torch.cat([score.flatten() for score in scores.values()])
        ties = torch.cat([self._compute_magnitudes(key).flatten() for key in scores])
        kept = ~select_lowest(flat, count, ties_by=ties)
        pieces = kept.split([score.numel() for score in scores.values()])
        return {
            key: piece.view(score.shape)
            for (key, score), piece in zip(scores.items(), pieces, strict=True)
        }

    def _compute_magnitudes(self, key: str) -> Tensor:
        """|w|, -1 for what is pruned already: what is alive and 0 goes after that."""
        return self.magnitudes[key].masked_fill(~self.kept(key), -1.0)


Allocation = Callable[[Candidates, int], "dict[str, Tensor]"]
"""From candidates and a number of weights to masks that prune exactly that many."""


RULES = "snnprune.pruning.allocation.rules"

ALLOCATIONS = Registry(
    kind="allocation",
    group="snnprune.allocations",
    rows={
        "global": RegistryRow(
            target=f"{RULES}:prune_globally", summary="one ranking over all layers"
        ),
        "local": RegistryRow(
            target=f"{RULES}:prune_locally", summary="the same sparsity in every layer"
        ),
        "pools": RegistryRow(
            target=f"{RULES}:prune_in_pools",
            summary="unscored layers as magnitude would prune them, the rest by score",
        ),
        "pools-alike": RegistryRow(
            target=f"{RULES}:prune_pools_alike",
            summary="the same sparsity in unscored and in scored layers",
        ),
        "pools-dense": RegistryRow(
            target=f"{RULES}:prune_scored_only", summary="unscored layers stay dense"
        ),
        "lamp": RegistryRow(
            target=f"{RULES}:prune_by_lamp",
            summary="one ranking of each score's part in what its layer would still have",
        ),
        "lamp-magnitude": RegistryRow(
            target=f"{RULES}:prune_by_lamp_of_magnitudes",
            summary="from each layer as many as lamp would by magnitude, chosen by score",
        ),
        "flips": RegistryRow(
            target=f"{RULES}:prune_by_flips",
            summary="the same predicted share of flipped spikes behind every layer",
        ),
        "erk": RegistryRow(
            target=f"{RULES}:prune_as_random_graphs",
            summary="density by shape, as Erdos-Renyi graphs with kernels",
        ),
        "uniform-plus": RegistryRow(
            target=f"{RULES}:prune_uniformly_plus",
            summary="local, but a dense first convolution and at most 80 % of the last layer",
        ),
    },
)


def load_allocation(name: str, *, field: str = "--allocation") -> Allocation:
    """The allocation of that name, or of a user's own file.

    Raises:
        InputError: there is none.
    """
    allocation: Allocation = ALLOCATIONS.load(name, field=field)
    return guard_function(allocation, name, field=field)


def require_sparsity(sparsity: float, *, field: str = "--sparsity") -> None:
    """Refuse what is no share of weights in [0, 1).

    Raises:
        UsageError: it is not; 95 may have meant 0.95.
    """
    if 0 <= sparsity < 1:
        return
    raise UsageError(f"{sparsity:g} is outside [0, 1)", field=field, hint=suggest_share(sparsity))


def warn_of_zeros(zeros: int, count: int, *, weights: int) -> list[str]:
    """A warning or a `Note` where `zeros` of `weights` were 0 before, and `count` were to go."""
    if zeros > count:
        return [f"{zeros} of {weights} weights are 0 already, more than the {count} asked for"]
    return [Note(f"{zeros} of the {count} pruned weights were 0 already")] if zeros else []


def deal_shares(sizes: list[int], count: int, *, floors: list[int]) -> list[int]:
    """`count` dealt out in proportion to `sizes`, none below its floor, all whole numbers.

    The largest remainders are rounded up (Hamilton's method). Where floors alone exceed `count`
    the floors are the answer.
    """
    raised = _find_raised(sizes, count, floors)
    left = count - sum(floors[index] for index in raised)
    if left < 0:
        return list(floors)
    return _deal_rest(sizes, left, fixed={index: floors[index] for index in raised})


def deal_capped_shares(proportions: list[int], count: int, *, caps: list[int]) -> list[int]:
    """`count` dealt out in `proportions`, none above its cap, all whole numbers.

    What a cap cuts off goes to the others; rounding is that of `deal_shares`. Where `count` is more
    than all caps together the caps are the answer.
    """
    full = _find_capped(proportions, count, caps)
    left = count - sum(caps[index] for index in full)
    return _deal_rest(proportions, left, fixed={index: caps[index] for index in full})


def _deal_rest(sizes: list[int], left: int, *, fixed: dict[int, int]) -> list[int]:
    """What is `fixed` at its place, and `left` in proportion to `sizes` at the others."""
    free = [index for index in range(len(sizes)) if index not in fixed]
    total = sum(sizes[index] for index in free)
    if total == 0:
        return [fixed.get(index, 0) for index in range(len(sizes))]
    dealt = {**fixed, **{index: sizes[index] * left // total for index in free}}
    by_remainder = sorted(free, key=lambda index: -(sizes[index] * left % total))
    for index in by_remainder[: left - sum(dealt[index] for index in free)]:
        dealt[index] += 1
    return [dealt[index] for index in range(len(sizes))]


def _find_raised(sizes: list[int], count: int, floors: list[int]) -> set[int]:
    """The places whose floor is more than their share of what the others leave."""
    raised: set[int] = set()
    while True:
        left = count - sum(floors[index] for index in raised)
        total = sum(size for index, size in enumerate(sizes) if index not in raised)
        more = {
            index
            for index, size in enumerate(sizes)
            if index not in raised and floors[index] * total > size * left
        }
        if not more:
            return raised
        raised |= more


def _find_capped(proportions: list[int], count: int, caps: list[int]) -> set[int]:
    """The places whose share of what the others leave is more than their cap."""
    full: set[int] = set()
    while True:
        left = count - sum(caps[index] for index in full)
        total = sum(part for index, part in enumerate(proportions) if index not in full)
        more = {
            index
            for index, part in enumerate(proportions)
            if index not in full and part * left > caps[index] * total
        }
        if not more:
            return full
        full |= more
