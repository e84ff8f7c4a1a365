"""Allocations: how a number of weights to prune is shared between layers.

To add one, write a function from `Candidates` and a count to masks, and name it in the table.
Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.errors import UsageError
from snnprune.errors.text import suggest_share
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function

if TYPE_CHECKING:
    from snnprune.pruning.allocation.candidates import Allocation


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
    """What is worth saying where `zeros` of `weights` were 0 before, and `count` were to go."""
    if zeros > count:
        return [f"{zeros} of {weights} weights are 0 already, more than the {count} asked for"]
    return [f"{zeros} of the {count} pruned weights were 0 already"] if zeros else []


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
