"""Choosing by position: exact counts whatever the ties."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnprune import masks
from snnprune.masks import select_highest, select_lowest
from snnprune.pruning.allocation import deal_capped_shares, deal_shares

SCORES = st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0])
TIES = st.integers(min_value=0, max_value=3)
# (size, floor): a floor is a number of weights of its own layer
LAYERS = st.lists(
    st.integers(min_value=1, max_value=40).flatmap(
        lambda size: st.tuples(st.just(size), st.integers(min_value=0, max_value=size))
    ),
    min_size=1,
    max_size=6,
)


@given(st.lists(st.tuples(SCORES, TIES), min_size=1, max_size=40), st.integers(0, 45))
def test_lowest_are_the_first_of_all_sorted_by_score_then_tie_then_position(
    weights: list[tuple[float, int]], count: int
) -> None:
    order = sorted(range(len(weights)), key=lambda index: (*weights[index], index))
    scores, ties = (
        torch.tensor(column, dtype=torch.float32) for column in zip(*weights, strict=True)
    )
    chosen = select_lowest(scores, count, ties_by=ties)
    assert chosen.nonzero().squeeze(1).tolist() == sorted(order[:count])


def by_kthvalue(scores: Tensor, count: int, ties: Tensor) -> Tensor:
    """The same choice by torch's own selection and a loop over ties."""
    cut = scores.kthvalue(count).values
    chosen = scores < cut
    tied = sorted(
        (scores == cut).nonzero().flatten().tolist(), key=lambda index: (ties[index].item(), index)
    )
    chosen[tied[: count - int(chosen.sum())]] = True
    return chosen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 700, 1500, 1999])
def test_lowest_is_that_of_torchs_selection_in_every_precision(
    dtype: torch.dtype, count: int
) -> None:
    drawn = torch.Generator().manual_seed(count)
    scores = torch.randn(2000, generator=drawn).to(dtype)
    scores[::3] = scores[0]  # a third of them tie
    scores[:40] = -torch.inf
    ties = torch.rand(2000, generator=drawn)
    scores.requires_grad_()
    chosen = select_lowest(scores, count, ties_by=ties)
    assert torch.equal(chosen, by_kthvalue(scores, count, ties))


def test_lowest_of_equals_are_the_first() -> None:
    same = torch.ones(5)
    assert select_lowest(same, 2, ties_by=same).tolist() == [True, True, False, False, False]


def test_float64_scores_and_ties_are_told_apart_beyond_float32() -> None:
    close = torch.tensor([1.0, 1.0 - 1e-12], dtype=torch.float64)
    assert select_lowest(close, 1, ties_by=torch.zeros(2)).tolist() == [False, True]
    assert select_lowest(torch.zeros(2), 1, ties_by=close).tolist() == [False, True]


def test_choosing_changes_neither_scores_nor_ties() -> None:
    scores, ties = torch.tensor([3.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, 1.0])
    select_lowest(scores, 1, ties_by=ties)
    assert (scores.tolist(), ties.tolist()) == ([3.0, 1.0, 1.0], [0.0, 2.0, 1.0])


@given(LAYERS, st.data())
def test_shares_sum_to_the_count_within_floors_and_sizes(
    layers: list[tuple[int, int]], data: st.DataObject
) -> None:
    sizes, floors = [size for size, _ in layers], [floor for _, floor in layers]
    count = data.draw(st.integers(min_value=sum(floors), max_value=sum(sizes)))
    dealt = deal_shares(sizes, count, floors=floors)
    assert sum(dealt) == count
    assert all(
        floor <= part <= size for floor, part, size in zip(floors, dealt, sizes, strict=True)
    )


@given(LAYERS, st.data())
def test_shares_above_their_floors_are_in_one_proportion(
    layers: list[tuple[int, int]], data: st.DataObject
) -> None:
    sizes, floors = [size for size, _ in layers], [floor for _, floor in layers]
    count = data.draw(st.integers(min_value=sum(floors), max_value=sum(sizes)))
    dealt = deal_shares(sizes, count, floors=floors)
    free = [i for i in range(len(sizes)) if dealt[i] > floors[i]]
    # one ratio lies within one weight of every free share, and none at its floor is owed more
    most = max((Fraction(dealt[i] - 1, sizes[i]) for i in free), default=Fraction(0))
    assert all(Fraction(dealt[i] + 1, sizes[i]) > most for i in range(len(sizes)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_shares_without_floors_are_the_exact_ones_rounded(
    sizes: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(min_value=0, max_value=sum(sizes)))
    dealt = deal_shares(sizes, count, floors=[0] * len(sizes))
    exact = [Fraction(size * count, sum(sizes)) for size in sizes]
    assert all(abs(part - ideal) < 1 for part, ideal in zip(dealt, exact, strict=True))


@given(LAYERS, st.data())
def test_floors_above_the_count_are_the_answer(
    layers: list[tuple[int, int]], data: st.DataObject
) -> None:
    sizes, floors = [size for size, _ in layers], [floor for _, floor in layers]
    count = data.draw(st.integers(min_value=0, max_value=sum(floors)))
    assert deal_shares(sizes, count, floors=floors) == floors


@pytest.mark.parametrize(
    ("sizes", "count", "floors", "expected"),
    [
        ([10, 10], 10, [0, 0], [5, 5]),
        ([10, 30], 20, [0, 0], [5, 15]),
        ([10, 10, 10], 10, [0, 0, 0], [4, 3, 3]),  # equal remainders: the first is rounded up
        ([5, 3, 2], 7, [0, 0, 0], [4, 2, 1]),  # 3.5, 2.1, 1.4: the largest remainder
        ([10, 10], 10, [8, 0], [8, 2]),
        ([10, 10, 10], 12, [9, 2, 0], [9, 2, 1]),  # 1.5 each is left: 2 is above it, 1 remains
    ],
)
def test_shares_worked_by_hand(
    sizes: list[int], count: int, floors: list[int], expected: list[int]
) -> None:
    assert deal_shares(sizes, count, floors=floors) == expected


@given(LAYERS, st.data())
def test_capped_shares_sum_to_the_count_and_none_is_above_its_cap(
    layers: list[tuple[int, int]], data: st.DataObject
) -> None:
    proportions, caps = [part for part, _ in layers], [cap for _, cap in layers]
    count = data.draw(st.integers(min_value=0, max_value=sum(caps)))
    dealt = deal_capped_shares(proportions, count, caps=caps)
    assert sum(dealt) == count
    assert all(0 <= part <= cap for part, cap in zip(dealt, caps, strict=True))
    free = [i for i in range(len(caps)) if dealt[i] < caps[i]]
    least = min((Fraction(dealt[i] + 1, proportions[i]) for i in free), default=None)
    # nothing has more than the free ones but for rounding
    assert least is None or all(
        Fraction(part - 1, one) < least for part, one in zip(dealt, proportions, strict=True)
    )


@pytest.mark.parametrize(
    ("proportions", "count", "caps", "expected"),
    [
        ([3, 12], 12, [2, 20], [2, 10]),
        ([1, 1, 1], 10, [9, 9, 1], [5, 4, 1]),  # 9 for two: equal remainders, the first
        ([1, 1], 9, [2, 3], [2, 3]),  # more than all caps
        ([1, 1], 0, [2, 3], [0, 0]),
    ],
)
def test_capped_shares_worked_by_hand(
    proportions: list[int], count: int, caps: list[int], expected: list[int]
) -> None:
    assert deal_capped_shares(proportions, count, caps=caps) == expected


FEW = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


@given(FEW, st.data())
def test_the_highest_are_what_the_lowest_leave_whatever_the_ties(
    values: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values)
    kept = select_highest(scores, count)
    assert int(kept.sum()) == count
    assert torch.equal(kept, ~select_lowest(scores, len(values) - count, ties_by=scores))


@given(FEW, st.data())
def test_a_gpu_would_choose_the_same(values: list[float], data: st.DataObject) -> None:
    scores, count = torch.tensor(values), data.draw(st.integers(1, len(values)))
    assert torch.equal(masks._select_by_sort(scores, count), select_highest(scores, count))


def test_weights_are_counted_over_all_masks_and_masked_where_there_is_one() -> None:
    held = {"a": torch.tensor([[True, False], [True, True]]), "b": torch.zeros(3).bool()}
    counts = (masks.count_prunable(held), masks.count_kept(held), masks.count_pruned(held))
    assert counts == (7, 3, 4)
    tensors = {"other": torch.ones(1), "a": torch.full((2, 2), math.nan), "b": torch.ones(3)}
    found = masks.apply_masks(tensors, held)
    assert list(found) == list(tensors)
    assert found["a"].isnan().tolist() == held["a"].tolist()
    assert found["a"][0, 1] == 0
    assert (found["b"].tolist(), found["other"].tolist()) == ([0, 0, 0], [1])


def test_of_equals_the_later_are_kept() -> None:
    kept: Tensor = select_highest(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 3)
    assert kept.tolist() == [True, False, True, True, False]
