"""From scores to masks, under which exactly as many weights are pruned as was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from snnprune.errors import InputError
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.pruning.allocation import (
    Allocation,
    Candidates,
    load_allocation,
    require_sparsity,
    warn_of_zeros,
)
from snnprune.pruning.score import Scores


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """Masks, and what is worth saying about them."""

    masks: Masks
    already_zero: int
    """Weights that were 0 before."""
    warnings: tuple[str, ...] = ()
    silenced: Mapping[str, Tensor] = field(default_factory=dict)
    """Of tensors beside the weights, True where they must be 0, by key; of whole channels."""


def prune(
    weights: Mapping[str, Tensor],
    scores: Scores,
    *,
    sparsity: float,
    allocation: Allocation | None = None,
    alive: Masks | None = None,
    flips: Mapping[str, Tensor] | None = None,
    places: Mapping[str, Tensor] | None = None,
) -> PruneResult:
    """Masks under which exactly `round(sparsity * prunable)` of `weights` are pruned.

    `scores` and `alive` may be of more weights than these. What is not `alive` (by default: what is
    0) is pruned already. It is pruned first and counted once; where there is more of it than that,
    it all stays pruned and a warning says so. Without an `allocation` it is that which fits the
    scores; `flips` are of `compute_flip_energies`, for one that asks for them, and `places` where
    the values of parameters are in weights that lie otherwise.

    Raises:
        UsageError: `sparsity` is outside [0, 1).
        InputError: the allocation cannot do it, or does something else.
    """
    require_sparsity(sparsity)
    scores = scores.of(weights)
    allocation = allocation or load_allocation(choose_default_allocation(scores))
    candidates = Candidates(
        scores=scores.values,
        magnitudes={key: _compute_magnitude(weight) for key, weight in weights.items()},
        criterion=scores.criterion,
        by_magnitude=frozenset(scores.fallback),
        alive=None if alive is None else {key: alive[key] for key in weights},
        scale=scores.scale,
        degree=scores.degree,
        flips=flips or {},
        places=places or {},
    )
    total = candidates.size(candidates.keys)
    zeros = candidates.count_pruned_already(candidates.keys)
    count = round(sparsity * total)
    masks = _check_masks(allocation(candidates, count), candidates)
    if count_pruned(masks) != max(count, zeros):
        raise InputError(
            f"prunes {count_pruned(masks)} weights instead of {max(count, zeros)}",
            field="--allocation",
        )
    told = zeros if alive is None else 0  # who says what is alive knows what is not
    return PruneResult(masks=masks, already_zero=zeros, warnings=_list_warnings(masks, told, count))


def _check_masks(chosen: object, candidates: Candidates) -> dict[str, Tensor]:
    """The masks that an allocation chose, checked; what was pruned stays so."""
    fits = isinstance(chosen, Mapping) and all(
        isinstance(chosen.get(key), Tensor) and chosen[key].shape == weight.shape
        for key, weight in candidates.magnitudes.items()
    )
    if not fits or not isinstance(chosen, Mapping):
        raise InputError("gives no mask for every weight in its shape", field="--allocation")
    return {key: chosen[key].bool() & candidates.kept(key) for key in candidates.keys}


def choose_default_allocation(scores: Scores) -> str:
    """`pools` where some layers could not be scored by the criterion, else `global`."""
    return "pools" if scores.fallback else "global"


def _compute_magnitude(weight: Tensor) -> Tensor:
    # float64 stays, so that no two different weights tie; half precision is widened
    return weight.abs() if weight.element_size() > 4 else weight.float().abs()


def _list_warnings(masks: Masks, zeros: int, count: int) -> tuple[str, ...]:
    whole = (f"{key} is pruned whole" for key, mask in masks.items() if not mask.any())
    told = warn_of_zeros(zeros, count, weights=count_prunable(masks))
    return (*told, *whole)
