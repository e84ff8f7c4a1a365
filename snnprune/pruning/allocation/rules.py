"""The allocations. Each prunes exactly as many weights as it is asked to."""

from torch import Tensor

from snnprune.errors import InputError
from snnprune.masks import deal_capped_shares, deal_shares
from snnprune.pruning.allocation.candidates import Candidates


def prune_as_random_graphs(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """A density in proportion to (n_in + n_out + k_1 + k_2 ...) / (n_in n_out k_1 k_2 ...).

    Erdos-Renyi-Kernel of Evci et al. 2020, arXiv 1911.11134; n_in are the inputs of one
    group. A layer that would be more than dense is dense, and the others have the rest.
    """
    keys = candidates.keys
    # density times size: the denominator cancels
    proportions = [sum(candidates.magnitudes[key].shape) for key in keys]
    sizes = [candidates.size([key]) for key in keys]
    alive = [size - candidates.zeros([key]) for key, size in zip(keys, sizes, strict=True)]
    kept = deal_capped_shares(proportions, sum(sizes) - count, caps=alive)
    return _prune_lowest(candidates, dict(zip(keys, map(int.__sub__, sizes, kept), strict=True)))


def prune_uniformly_plus(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """The same sparsity in every layer, but a dense first convolution and a last linear layer of
    at most 80 %; Gale et al. 2019, arXiv 1902.09574.

    First and last in the order of the checkpoint.

    Raises:
        InputError: that leaves fewer weights than are to go.
    """
    dims = {key: weight.dim() for key, weight in candidates.magnitudes.items()}
    first = next((key for key, dim in dims.items() if dim > 2), None)
    last = next((key for key, dim in reversed(dims.items()) if dim == 2), None)
    limits = {key: candidates.size([key]) for key in candidates.keys}
    if first is not None:
        limits[first] = candidates.zeros([first])
    if last is not None:
        limits[last] = max(candidates.zeros([last]), limits[last] * 4 // 5)
    if count > sum(limits.values()):
        raise InputError(
            f"uniform-plus prunes at most {sum(limits.values())} weights, not {count}",
            field="--allocation",
            hint="choose local or erk",
        )
    fixed = {} if first is None else {first: limits[first]}
    dealt = _count_uniformly(candidates, count, fixed)
    if last is not None and dealt[last] > limits[last]:
        dealt = _count_uniformly(candidates, count, {**fixed, last: limits[last]})
    return _prune_lowest(candidates, dealt)


def _count_uniformly(candidates: Candidates, count: int, fixed: dict[str, int]) -> dict[str, int]:
    """How many weights go from each layer: as `fixed`, and the same share of the others."""
    free = [key for key in candidates.keys if key not in fixed]
    sizes = [candidates.size([key]) for key in free]
    floors = [candidates.zeros([key]) for key in free]
    dealt = deal_shares(sizes, count - sum(fixed.values()), floors=floors)
    return {**fixed, **dict(zip(free, dealt, strict=True))}


def _prune_lowest(candidates: Candidates, counts: dict[str, int]) -> dict[str, Tensor]:
    """Masks that prune so many of each layer, the lowest-scored."""
    return {key: candidates.lowest([key], counts[key])[key] for key in candidates.keys}


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
    return _prune_groups_equally(candidates, groups, count)


def prune_in_pools(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """As much from the magnitude-scored layers as ranking everything by magnitude would take.

    The rest of the count comes from the other layers by their score, so that against magnitude
    pruning only the criterion differs (decision A8 of docs/criteria).
    """
    outside = candidates.pool(by_magnitude=True)
    scored = candidates.pool(by_magnitude=False)
    by_magnitude = candidates.prune_lowest_magnitudes(count)
    taken = sum(int((~by_magnitude[key]).sum()) for key in outside)
    return {
        **{key: by_magnitude[key] for key in outside},
        **candidates.lowest(scored, count - taken),
    }


def prune_pools_alike(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """The same sparsity in the magnitude-scored layers together and in the others together."""
    groups = [candidates.pool(by_magnitude=flag) for flag in (True, False)]
    return _prune_groups_equally(candidates, [group for group in groups if group], count)


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


def _prune_groups_equally(
    candidates: Candidates, groups: list[list[str]], count: int
) -> dict[str, Tensor]:
    sizes = [candidates.size(group) for group in groups]
    floors = [candidates.zeros(group) for group in groups]
    dealt = zip(groups, deal_shares(sizes, count, floors=floors), strict=True)
    masks = [candidates.lowest(group, share) for group, share in dealt]
    return {key: mask for group in masks for key, mask in group.items()}
