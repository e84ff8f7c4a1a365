"""Streaming statistics against NumPy on everything at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnprune.measure.channel_sums import (
    ChannelHistogram,
    ChannelMean,
    ChannelMoments,
    StepMoments,
    reshape_to_blocks,
)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 2**31),
)
def test_moments_of_any_batches_equal_those_of_all_values(
    sizes: list[int], offset: float, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(offset, 1, (3, sum(sizes)))
    moments = ChannelMoments()
    for part in np.split(values, np.cumsum(sizes)[:-1], axis=1):
        moments.add(torch.from_numpy(part).view(1, 3, -1))
    np.testing.assert_allclose(moments.mean.numpy(), values.mean(1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        moments.compute_variance().numpy(), values.var(1), rtol=1e-9, atol=1e-12
    )


def test_a_variance_far_from_zero_mean_does_not_cancel_in_float32() -> None:
    values = (torch.arange(1000) % 2).float().add(4096.0).view(1, 1, -1)
    moments = ChannelMoments()
    moments.add(values[:, :, :300])
    moments.add(values[:, :, 300:])
    assert moments.compute_variance().item() == pytest.approx(0.25, rel=1e-6)


def test_the_kind_of_values_is_the_weakest_that_was_met() -> None:
    mean = ChannelMean()
    kinds = []
    for value in (1.0, 2.0, 0.5, 1.0):
        mean.add(torch.tensor([[[0.0, value]]]))
        kinds.append(mean.values)
    assert kinds == ["binary", "counts", "analog", "analog"]
    assert mean.compute_mean().tolist() == [4.5 / 8]


def test_negative_inputs_count_by_their_absolute_value() -> None:
    mean = ChannelMean()
    mean.add(torch.tensor([[[-1.0, 3.0]]]))
    assert (mean.values, mean.compute_mean().tolist()) == ("analog", [2.0])


@pytest.mark.parametrize("kind", ["binary", "counts", "analog"])
def test_means_of_values_and_squares_equal_numpys(kind: str) -> None:
    values = np.random.default_rng(1).normal(0.3, 2, (6, 3, 50)).astype(np.float32)
    values = {"binary": values > 0, "counts": np.floor(abs(values)), "analog": values}[kind]
    values = values.astype(np.float32)
    first, second = ChannelMean(), ChannelMean()
    for mean, part in ((first, values[:2]), (first, values[2:3]), (second, values[3:])):
        mean.add(torch.from_numpy(part))
    first.merge(second)
    exact = values.astype(np.float64)
    assert first.values == kind
    for found, expected in (
        (first.compute_mean(), abs(exact)),
        (first.compute_signed_mean(), exact),
        (first.compute_mean_square(), exact**2),
    ):
        np.testing.assert_allclose(found.numpy(), expected.mean((0, 2)), rtol=1e-6)


def test_squares_of_spikes_that_came_before_counts_are_not_lost() -> None:
    mean = ChannelMean()
    mean.add(torch.tensor([[[0.0, 1.0]]]))
    mean.add(torch.tensor([[[3.0, -2.0]]]))
    assert (mean.compute_mean().tolist(), mean.compute_signed_mean().tolist()) == ([6 / 4], [2 / 4])
    assert mean.compute_mean_square().item() == pytest.approx(14 / 4)


def test_moments_of_steps_are_each_of_their_own_and_merge_to_those_of_all() -> None:
    x = np.random.default_rng(3).normal(0, 1, (3, 8, 2)) * [[[1]], [[2]], [[3]]] + 5
    first, second = StepMoments(), StepMoments()
    for step in range(3):
        first.at(step).add(torch.from_numpy(x[step, :5].T[None]))
        second.at(step).add(torch.from_numpy(x[step, 5:].T[None]))
    first.merge(second)
    np.testing.assert_allclose(first.compute_mean().numpy(), x.mean(1))
    np.testing.assert_allclose(first.compute_variance().numpy(), x.var(1))
    np.testing.assert_allclose(first.together().mean.numpy(), x.mean((0, 1)))
    np.testing.assert_allclose(first.together().compute_variance().numpy(), x.var((0, 1)))


def test_the_histogram_equals_numpys_with_the_outside_on_either_end() -> None:
    values = torch.tensor([[-5.0, -1.0, -0.6, 0.0, 0.49, 0.5, 0.99, 1.0, 7.0], [0.1] * 9])
    histogram = ChannelHistogram(-1.0, 1.0, 4)
    histogram.add(values[None, :, :5])
    histogram.add(values[None, :, 5:])
    # half-open bins [-1,-.5) [-.5,0) [0,.5) [.5,1), below, above
    assert histogram.counts.tolist() == [[1, 2, 0, 2, 2, 2], [0, 0, 0, 9, 0, 0]]
    assert histogram.compute_edges().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("axis", [-1, -2, -3, -4])
def test_blocks_hold_every_value_under_its_channel(axis: int) -> None:
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    found = torch.cat([block.movedim(1, 0).flatten(1) for block in reshape_to_blocks(x, axis)], 1)
    expected = x.movedim(axis, 0).flatten(1)
    assert torch.equal(found.sort(1).values, expected.sort(1).values)


def test_a_large_tensor_comes_in_several_blocks() -> None:
    x = torch.zeros(5, 2, 2**10, 2**9)
    assert [len(block) for block in reshape_to_blocks(x, -3)] == [1] * 5


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3), offset=st.floats(-1e3, 1e3), seed=st.integers(0, 99)
)
def test_moments_of_float32_blocks_are_those_of_float64(
    shape: tuple[int, int, int], offset: float, seed: int
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=drawn) + offset
    moments = ChannelMoments()
    moments.add(x)
    exact = x.double()
    torch.testing.assert_close(moments.mean, exact.mean((0, 2)), rtol=1e-6, atol=1e-6)
    variance = exact.var((0, 2), correction=0)
    torch.testing.assert_close(moments.compute_variance(), variance, rtol=1e-3, atol=1e-6)
