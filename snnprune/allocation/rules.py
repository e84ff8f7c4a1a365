"""The allocations. Each prunes exactly as many weights as it is asked to."""

from torch import Tensor

from snnprune.allocation.candidates import Candidates
from snnprune.errors import InputError
from snnprune.ranking import shares


def prune_globally(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """One ranking over all layers."""
    if candidates.pool(by_magnitude=True) and candidates.pool(by_magnitude=False):
        raise InputError(
            f"global cannot rank {candidates.criterion} and magnitude scores together",
            field="--allocation",
            hint="choose pools or local",
        )
    return candidates.lowest(candidates.keys, count)


def prune_locally(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """The same sparsity in every layer."""
    groups = [[key] for key in candidates.keys]
    return _each_its_share(candidates, groups, count)


def prune_in_pools(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """As much from the magnitude-scored layers as ranking everything by magnitude would take.

    The rest of the count comes from the other layers by their score, so that against magnitude
    pruning only the criterion differs (decision A8 of docs/criteria).
    """
    outside = candidates.pool(by_magnitude=True)
    scored = candidates.pool(by_magnitude=False)
    by_magnitude = candidates.lowest_magnitudes(count)
    taken = sum(int((~by_magnitude[key]).sum()) for key in outside)
    return {
        **{key: by_magnitude[key] for key in outside},
        **candidates.lowest(scored, count - taken),
    }


def prune_pools_alike(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """The same sparsity in the magnitude-scored layers together and in the others together."""
    groups = [candidates.pool(by_magnitude=flag) for flag in (True, False)]
    return _each_its_share(candidates, [group for group in groups if group], count)


def prune_scored_only(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """Everything from the layers that the criterion scored; the others stay as they are."""
    outside = candidates.pool(by_magnitude=True)
    scored = candidates.pool(by_magnitude=False)
    left = count - candidates.zeros(outside)
    if left > candidates.size(scored):
        raise InputError(
            f"{left} weights to prune, but only {candidates.size(scored)} in scored layers",
            field="--allocation",
            hint="choose pools",
        )
    kept = {key: candidates.kept(key) for key in outside}
    return {**kept, **candidates.lowest(scored, left)}


def _each_its_share(
    candidates: Candidates, groups: list[list[str]], count: int
) -> dict[str, Tensor]:
    sizes = [candidates.size(group) for group in groups]
    floors = [candidates.zeros(group) for group in groups]
    dealt = zip(groups, shares(sizes, count, floors=floors), strict=True)
    masks = [candidates.lowest(group, share) for group, share in dealt]
    return {key: mask for group in masks for key, mask in group.items()}
