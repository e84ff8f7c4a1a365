"""What changed between two tensors."""

import math

import pytest
import torch

from snnprune.measure import sum_changes
from snnprune.measure.agreement import measure_change


def test_a_change_is_counted_by_hand() -> None:
    found = measure_change(torch.tensor([3.0, 0.0, 4.0, 1.0]), torch.tensor([3.0, 2.0, 0.0, 0.0]))
    assert (found.values, found.changed) == (4, 3)
    assert (found.zeros_first, found.zeros_other) == (1, 2)
    assert (found.kept_by_both, found.kept_by_either, found.overlap) == (1, 4, 0.25)
    assert found.relative == pytest.approx(math.sqrt((4 + 16 + 1) / 26))


def test_tensors_of_several_layers_count_as_one() -> None:
    a, b = torch.randn(3, 4), torch.randn(5)
    c, d = a * (a > 0), b * (b > 0)
    whole = measure_change(torch.cat([a.flatten(), b]), torch.cat([c.flatten(), d]))
    both = sum_changes([measure_change(a, c), measure_change(b, d)])
    assert both.kept_by_both == whole.kept_by_both
    assert both.changed == whole.changed
    assert both.relative == pytest.approx(whole.relative)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float16, torch.complex64])
def test_any_type_is_the_same_as_itself(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 1]).to(dtype)
    found = measure_change(values, values.clone())
    assert (found.changed, found.relative, found.overlap) == (0, 0.0, 1.0)


def test_a_complex_value_beside_a_real_one_differs_by_its_imaginary_part_too() -> None:
    real, other = torch.tensor([3.0]), torch.tensor([3.0 + 4.0j])
    assert measure_change(real, other).relative == pytest.approx(4 / 3)
    assert measure_change(other, real).relative == pytest.approx(4 / 5)


def test_not_a_number_is_the_same_as_itself_and_no_relative_change() -> None:
    nan = torch.tensor([torch.nan, 1.0])
    assert measure_change(nan, nan.clone()).changed == 0
    found = measure_change(nan, torch.ones(2))
    assert (found.changed, found.relative) == (1, None)


def test_a_change_from_nothing_is_no_ratio() -> None:
    assert measure_change(torch.zeros(2), torch.ones(2)).relative is None
    assert measure_change(torch.zeros(2), torch.zeros(2)).overlap == 1
