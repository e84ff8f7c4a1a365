"""The allocations. Each prunes exactly as many weights as it is asked to.

They rank or share out layers as they are; give every weight a level that rises as its layer
empties, so that the lowest levels go; or take what each layer was measured to cost alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.network import Layer, Network
from snnprune.masks import select_lowest
from snnprune.measure.calibration import Calibration, LayerStatistics
from snnprune.pruning.allocation import Candidates, deal_capped_shares, deal_shares
from snnprune.pruning.criteria import Evidence
from snnprune.pruning.criteria.spiking import compute_flip_energy


def prune_as_random_graphs(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """A density in proportion to (n_in + n_out + k_1 + k_2 ...) / (n_in n_out k_1 k_2 ...).

    Erdos-Renyi-Kernel of Evci et al. 2020, arXiv 1911.11134; n_in are the inputs of one
    group. A layer that would be more than dense is dense, and the others have the rest.
    """
    keys = candidates.keys
    # density times size: the denominator cancels
    proportions = [sum(candidates.magnitudes[key].shape) for key in keys]
    sizes = [candidates.size([key]) for key in keys]
    alive = [int(candidates.kept(key).sum()) for key in keys]
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
        limits[first] = candidates.count_pruned_already([first])
    if last is not None:
        limits[last] = max(candidates.count_pruned_already([last]), limits[last] * 4 // 5)
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
    floors = [candidates.count_pruned_already([key]) for key in free]
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
    left = count - candidates.count_pruned_already(outside)
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
    floors = [candidates.count_pruned_already(group) for group in groups]
    dealt = zip(groups, deal_shares(sizes, count, floors=floors), strict=True)
    masks = [candidates.lowest(group, share) for group, share in dealt]
    return {key: mask for group in masks for key, mask in group.items()}


def compute_flip_energies(
    weights: Mapping[str, Tensor], network: Network, calibration: Calibration
) -> dict[str, Tensor]:
    """`compute_flip_energy` of each layer of which it is known what it does to spikes, by weight
    key.

    Linear layers without BatchNorm and the encoding layer are among them.

    Raises:
        InputError: the calibration is of a version that did not take what this needs.
    """
    return {
        key: compute_flip_energy(
            Evidence(
                weight=_get_applied_weight(weight, network.layers[key], calibration.layers[key]),
                key=key,
                groups=network.layers[key].groups,
                statistics=calibration.layers[key],
            )
        )
        for key, weight in weights.items()
        if key in calibration.layers and calibration.layers[key].drives
    }


def find_weight_indices(network: Network) -> dict[str, Tensor]:
    """Where each value of a parameter is in its weight, flat, of those that lie otherwise."""
    places = {}
    for key, layer in network.layers.items():
        if layer.layout is not None:
            count = torch.Size(layer.shape).numel()
            places[key] = layer.parameter_of(torch.arange(count).view(layer.shape)).flatten()
    return places


def _get_applied_weight(held: Tensor, layer: Layer, statistics: LayerStatistics) -> Tensor:
    """The weight (out, in / groups, *kernel) that the network applies."""
    return layer.weight_of(held) if statistics.weight is None else statistics.weight


def compute_flip_levels(energies: Tensor, queue: Tensor) -> Tensor:
    """The predicted share of flipped spikes as the places of `queue` go one by one, (n,) float64.

    `energies` (out, ...) are e_ij; of each output the root of the sum of those gone, then the mean.
    `queue` (n,) are flat places, each once.
    """
    outputs = len(energies)
    channel = queue // energies[0].numel()
    counts = channel.bincount(minlength=outputs)
    # a row for each output, so that sums of one do not round those of another
    by_channel = channel.argsort(stable=True)
    row = channel[by_channel]
    column = torch.arange(len(queue), device=queue.device) - (counts.cumsum(0) - counts)[row]
    gone = torch.zeros(outputs, int(counts.max()) + 1, dtype=torch.float64, device=queue.device)
    gone[row, column + 1] = energies.flatten().double()[queue[by_channel]]
    steps = torch.empty(len(queue), dtype=torch.float64, device=queue.device)
    steps[by_channel] = gone.cumsum(1).sqrt().diff(dim=1)[row, column]
    return steps.cumsum(0) / outputs


Queues = Mapping[str, Tensor]
"""By layer, the flat places of what is alive in the order in which it goes, (n,) int64."""


def prune_by_lamp(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """One ranking of s_u^2 / (sum of s_v^2 over all v of the layer that do not go before u).

    Lee et al. 2021, arXiv 2010.07611, with any score s that grows as |w|: the square root
    of one that grows as w^2. What goes last in a layer has 1, so no layer is emptied while another
    has more than one weight. Scores below 0 count as 0.
    """
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    taken = _count_by_lamp(candidates, queues, _count_remaining(candidates, count))
    return _make_masks(candidates, queues, taken)


def prune_by_lamp_of_magnitudes(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """From each layer as many as `lamp` would take by magnitude; which ones, the scores say.

    For scores that know what a weight is worth within its layer, and not what layers are worth.
    """
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    by_size = replace(
        candidates,
        scores={
            key: size.double().masked_fill(~candidates.kept(key), -torch.inf)
            for key, size in candidates.magnitudes.items()
        },
        by_magnitude=frozenset(),
        scale="linear",
        degree=1,
    )
    order = {key: by_size.order_alive(key) for key in candidates.keys}
    taken = _count_by_lamp(by_size, order, _count_remaining(candidates, count))
    return _make_masks(candidates, queues, taken)


def prune_by_flips(candidates: Candidates, count: int) -> dict[str, Tensor]:
    """As much from each layer as lets equally many of the spikes behind it flip; snnprune's own.

    The share of spikes of channel j that flip is predicted to be sqrt(sum of e_ij over the pruned
    i), a layer's the mean over its channels; see `compute_flip_energy`. Layers of
    which nothing is known, as the last, lose what `lamp` over all layers would take from them.
    """
    if not candidates.flips:
        raise InputError(
            "flips needs statistics of spikes",
            field="--allocation",
            hint="give --model and --data, or choose lamp",
        )
    queues = {key: candidates.order_alive(key) for key in candidates.keys}
    known = {key: queues[key] for key in candidates.keys if key in candidates.flips}
    left = _count_remaining(candidates, count)
    by_lamp = _count_by_lamp(candidates, queues, left) if len(known) < len(queues) else {}
    outside = {key: by_lamp[key] for key in queues if key not in known}
    levels = {
        key: compute_flip_levels(candidates.flips[key], candidates.map_to_weight(key, queue))
        for key, queue in known.items()
    }
    taken = _count_lowest_levels(candidates, known, levels, left - sum(outside.values()))
    return _make_masks(candidates, queues, {**outside, **taken})


def compute_lamp_levels(energies: Tensor) -> Tensor:
    """log of e_u / (e_u + e_u+1 + ...) of rising log energies (n,), 0 for the last."""
    rest = energies.flip(0).logcumsumexp(0).flip(0)
    levels = energies - rest
    levels[energies == -torch.inf] = -torch.inf
    # past all that is finite, and before what goes last in any layer
    levels[energies == torch.inf] = -torch.finfo(levels.dtype).tiny
    levels[-1:] = 0
    return levels


def _count_remaining(candidates: Candidates, count: int) -> int:
    """How many are to go beside what is pruned already."""
    return max(0, count - candidates.count_pruned_already(candidates.keys))


def _count_by_lamp(candidates: Candidates, queues: Queues, count: int) -> dict[str, int]:
    levels = {
        key: compute_lamp_levels(_compute_log_energies(candidates, key)[queue])
        for key, queue in queues.items()
    }
    return _count_lowest_levels(candidates, queues, levels, count)


def _compute_log_energies(candidates: Candidates, key: str) -> Tensor:
    """log of what grows as w^2, flat, float64."""
    scores = candidates.scores[key].flatten().double()
    logs = scores if candidates.scale == "log" else scores.clamp(min=0).log()
    return logs * (2 / (1 if key in candidates.by_magnitude else candidates.degree))


def _count_lowest_levels(
    candidates: Candidates, queues: Queues, levels: Mapping[str, Tensor], count: int
) -> dict[str, int]:
    """How many of each layer are among the `count` lowest levels; equals by magnitude."""
    if not queues:
        return {}
    sizes = [candidates.magnitudes[key].flatten()[queue] for key, queue in queues.items()]
    chosen = select_lowest(
        torch.cat([levels[key] for key in queues]), count, ties_by=torch.cat(sizes)
    )
    pieces = chosen.split([len(queue) for queue in queues.values()])
    return {key: int(piece.sum()) for key, piece in zip(queues, pieces, strict=True)}


def _make_masks(
    candidates: Candidates, queues: Queues, taken: Mapping[str, int]
) -> dict[str, Tensor]:
    return {key: candidates.without(key, queue[: taken[key]]) for key, queue in queues.items()}


Curve = Sequence[tuple[float, float]]
"""Sparsities in [0, 1) of one layer, each with what it costs."""
Point = tuple[int, float]
"""Pruned weights, and what they cost."""


def choose_cheapest(
    curves: Mapping[str, Curve], sizes: Mapping[str, int], count: int
) -> dict[str, int]:
    """How many weights to prune in each layer, `count` in all, for the least summed cost.

    A layer's cost is the lower convex hull of its points, which straight lines join: the best that
    can be reached on average between two measured sparsities. The cheapest pieces of all layers
    together go first, which is exact for a sum of convex costs. A layer is never pruned less or
    more than at its points; where the least of all layers together exceed `count` they are the
    answer.

    Raises:
        InputError: `count` is more than all layers lose at their highest sparsities.
    """
    hulls = {key: lower_hull(_make_points(curve, sizes[key])) for key, curve in curves.items()}
    most = sum(hull[-1][0] for hull in hulls.values())
    if count > most:
        raise InputError(
            f"{count} weights to prune, but no more than {most} at the sparsities measured",
            field="--sparsity",
            hint="measure higher --sparsities",
        )
    chosen = {key: hull[0][0] for key, hull in hulls.items()}
    left = count - sum(chosen.values())
    for _, key, length in sorted(_list_pieces(hulls), key=lambda piece: piece[0]):
        taken = max(0, min(length, left))
        chosen[key] += taken
        left -= taken
    return chosen


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The corners of the largest convex function that lies nowhere above `points`."""
    hull: list[Point] = []
    for point in sorted(points):
        if hull and hull[-1][0] == point[0]:  # the cheaper of the two stays
            continue
        while len(hull) > 1 and not _bends_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _bends_up(a: Point, b: Point, c: Point) -> bool:
    return (b[1] - a[1]) * (c[0] - b[0]) < (c[1] - b[1]) * (b[0] - a[0])


def _make_points(curve: Curve, size: int) -> list[Point]:
    return [(round(sparsity * size), cost) for sparsity, cost in curve]


def _list_pieces(hulls: Mapping[str, Sequence[Point]]) -> list[tuple[float, str, int]]:
    """Cost per weight, layer and weights of each piece; a layer's later pieces cost no less."""
    return [
        ((b[1] - a[1]) / (b[0] - a[0]), key, b[0] - a[0])
        for key, hull in hulls.items()
        for a, b in pairwise(hull)
    ]
