"""Allocations by the shapes of the layers alone; scores decide within a layer."""

from torch import Tensor

from snnprune.allocation.candidates import Candidates
from snnprune.errors import InputError
from snnprune.ranking import capped_shares, shares


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
    kept = capped_shares(proportions, sum(sizes) - count, caps=alive)
    return _pruned(candidates, dict(zip(keys, map(int.__sub__, sizes, kept), strict=True)))


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
    dealt = _uniform(candidates, count, fixed)
    if last is not None and dealt[last] > limits[last]:
        dealt = _uniform(candidates, count, {**fixed, last: limits[last]})
    return _pruned(candidates, dealt)


def _uniform(candidates: Candidates, count: int, fixed: dict[str, int]) -> dict[str, int]:
    """How many weights go from each layer: as `fixed`, and the same share of the others."""
    free = [key for key in candidates.keys if key not in fixed]
    sizes = [candidates.size([key]) for key in free]
    floors = [candidates.zeros([key]) for key in free]
    dealt = shares(sizes, count - sum(fixed.values()), floors=floors)
    return {**fixed, **dict(zip(free, dealt, strict=True))}


def _pruned(candidates: Candidates, counts: dict[str, int]) -> dict[str, Tensor]:
    """Masks that prune so many of each layer, the lowest-scored."""
    return {key: candidates.lowest([key], counts[key])[key] for key in candidates.keys}
