"""Sparsities by what was measured to be lost: as cheap as the best of all ways to share."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnprune.errors import InputError
from snnprune.pruning.allocation.rules import Curve, choose_cheapest, lower_hull

Point = tuple[int, float]


def below(points: list[Point], x: int) -> float:
    """The lowest line between two of `points`, or one of them, at `x`."""
    lines = [
        a[1] if a[0] == b[0] else a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])
        for a, b in itertools.product(points, repeat=2)
        if a[0] <= x <= b[0] and (a[0] < b[0] or a[0] == x)
    ]
    return min(lines)


def points_of(curve: Curve, size: int) -> list[Point]:
    return [(round(sparsity * size), cost) for sparsity, cost in curve]


def cost_of(curves: dict[str, Curve], sizes: dict[str, int], counts: dict[str, int]) -> float:
    return sum(below(points_of(curves[key], sizes[key]), counts[key]) for key in curves)


def best_by_trying(curves: dict[str, Curve], sizes: dict[str, int], count: int) -> float:
    """The least cost of all ways to prune `count` weights."""
    reach = {key: [p for p, _ in points_of(curves[key], sizes[key])] for key in curves}
    ways = itertools.product(*(range(min(r), max(r) + 1) for r in reach.values()))
    fitting = [dict(zip(curves, way, strict=True)) for way in ways if sum(way) == count]
    return min(cost_of(curves, sizes, way) for way in fitting)


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, Curve], dict[str, int]]:
    sizes = {key: draw(st.integers(1, 12)) for key in "abc"}
    costs = st.integers(0, 20).map(float)
    shares = st.lists(st.integers(1, 99).map(lambda x: x / 100), min_size=1, max_size=4)
    curves: dict[str, Curve] = {
        key: [(0.0, 0.0), *((share, draw(costs)) for share in draw(shares))] for key in sizes
    }
    return curves, sizes


@given(problems(), st.floats(0, 1))
def test_no_way_of_sharing_is_cheaper(
    problem: tuple[dict[str, Curve], dict[str, int]], part: float
) -> None:
    curves, sizes = problem
    most = sum(max(p for p, _ in points_of(curves[key], sizes[key])) for key in curves)
    count = round(part * most)
    counts = choose_cheapest(curves, sizes, count)
    assert sum(counts.values()) == count
    assert cost_of(curves, sizes, counts) == pytest.approx(best_by_trying(curves, sizes, count))


def test_a_layer_that_costs_less_per_weight_goes_first() -> None:
    curves: dict[str, Curve] = {
        "a": [(0.0, 0.0), (0.5, 1.0), (0.9, 9.0)],  # 0.02 a weight, then 0.2
        "b": [(0.0, 0.0), (0.5, 4.0), (0.9, 8.0)],  # 0.08, then 0.1
    }
    sizes = {"a": 100, "b": 100}
    assert choose_cheapest(curves, sizes, 40) == {"a": 40, "b": 0}
    assert choose_cheapest(curves, sizes, 110) == {"a": 50, "b": 60}
    assert choose_cheapest(curves, sizes, 150) == {"a": 60, "b": 90}


def test_what_is_pruned_already_stays_so() -> None:
    curves: dict[str, Curve] = {"a": [(0.5, 0.0), (0.9, 9.0)], "b": [(0.0, 0.0), (0.9, 0.1)]}
    assert choose_cheapest(curves, {"a": 10, "b": 10}, 3) == {"a": 5, "b": 0}
    assert choose_cheapest(curves, {"a": 10, "b": 10}, 9) == {"a": 5, "b": 4}


def test_more_than_was_measured_is_refused() -> None:
    with pytest.raises(InputError, match="19 weights to prune, but no more than 18"):
        choose_cheapest({"a": [(0.0, 0.0), (0.9, 1.0)], "b": [(0.9, 2.0)]}, {"a": 10, "b": 10}, 19)


def test_the_hull_leaves_out_what_lies_above_it_and_keeps_the_cheaper_of_two() -> None:
    points = [(0, 0.0), (1, 5.0), (2, 2.0), (3, 3.0), (4, 7.0), (4, 9.0)]
    assert lower_hull(points) == [(0, 0.0), (3, 3.0), (4, 7.0)]
