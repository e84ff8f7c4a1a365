"""How many weights each layer loses where it was measured what a layer costs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from snnprune.errors import InputError

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
