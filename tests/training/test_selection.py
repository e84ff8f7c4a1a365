"""Which scores are the highest."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnprune import masks
from snnprune.masks import select_highest, select_lowest

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


def test_of_equals_the_later_are_kept() -> None:
    kept: Tensor = select_highest(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 3)
    assert kept.tolist() == [True, False, True, True, False]
