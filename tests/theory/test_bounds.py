"""What an error of the membrane may do to a spike, worked out on a histogram of four bins."""

import pytest
import torch
from torch import Tensor

from snnprune.measure.calibration import NeuronStatistics
from snnprune.theory.crisis import (
    FLOAT32,
    Densities,
    compute_reach,
    density_bound,
    rank_correlation,
)

EDGES = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)


def neuron(*counts: int) -> NeuronStatistics:
    """One channel; the first and the last count are what lies outside of the edges."""
    one = torch.ones(1, dtype=torch.float64)
    return NeuronStatistics(
        firing_rate=one,
        membrane_mean=one,
        membrane_var=one,
        membrane_histogram=torch.tensor([counts]),
        threshold=one,
        histogram_edges=EDGES,
    )


def bound(radius: float, near: float, counts: tuple[int, ...]) -> float:
    def of(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return float(density_bound(neuron(*counts), of(radius), of(near)))


@pytest.mark.parametrize(
    ("radius", "near", "expected"),
    [
        # 20 of 100 in a bin of 0.5 are a density of 0.4; the bins that r touches are the inner two
        (0.1, 0.0, 2 * 0.4 * 0.1),
        (0.25, 0.0, 2 * 0.4 * 0.25),
        # from 0.5 on the outer bins count too: 30 of 100, a density of 0.6
        (0.5, 0.0, 2 * 0.6 * 0.5),
        # within a bin it may be higher than on the whole of it: what was counted near holds
        (0.1, 0.3, 0.3),
        # past the bins nobody counted
        (1.0, 0.0, 1.0),
    ],
)
def test_the_bound_is_twice_the_highest_density_that_the_error_reaches_times_the_error(
    radius: float, near: float, expected: float
) -> None:
    assert bound(radius, near, (0, 30, 20, 20, 30, 0)) == pytest.approx(expected)


def test_what_lies_outside_of_the_bins_thins_the_density() -> None:
    assert bound(0.1, 0.0, (50, 30, 20, 20, 30, 50)) == pytest.approx(2 * 0.2 * 0.1)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_bin_counts_as_soon_as_the_error_reaches_its_edge(side: float) -> None:
    dense_outside = (0, 0, 10, 10, 80, 0) if side > 0 else (0, 80, 10, 10, 0, 0)
    inner, outer = 2 * 0.2, 2 * 1.6  # 10 and 80 of 100 in bins of 0.5
    assert bound(0.499, 0.0, dense_outside) == pytest.approx(inner * 0.499)
    assert bound(0.5, 0.0, dense_outside) == pytest.approx(min(1, outer * 0.5))


def test_past_the_bins_an_error_may_flip_every_spike() -> None:
    counts = (45, 3, 2, 2, 3, 45)
    assert bound(0.999, 0.0, counts) == pytest.approx(2 * 0.06 * 0.999)
    assert bound(1.0, 0.0, counts) == 1


def test_a_neuron_that_nothing_was_counted_of_has_no_density() -> None:
    assert bound(0.1, 0.0, (0, 0, 0, 0, 0, 0)) == 0


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize("decay_input", [False, True])
def test_an_error_gathers_from_step_to_step(decay_input: bool) -> None:
    error, seen = torch.tensor([0.1], dtype=torch.float64), column(0.05, 0.05, 0.05)
    found, followed = compute_reach(0.5, error, seen, decay_input=decay_input)
    gone = column(0.1, 0.15, 0.175) / (2 if decay_input else 1)
    assert followed
    torch.testing.assert_close(found, gone + FLOAT32 * (gone + 1), rtol=1e-12, atol=0)


def test_without_an_error_nothing_moves() -> None:
    found, followed = compute_reach(0.5, torch.zeros(1), torch.zeros(3, 1))
    assert followed
    assert not found.any()


def test_what_rounding_adds_is_added_at_every_step_and_what_is_more_is_not_followed() -> None:
    error = torch.tensor([1.0], dtype=torch.float64)
    found, followed = compute_reach(0.0, error, column(1.0, 1 + 1e-5, 0.5))
    assert followed
    expected = 1 + 1e-5 + 2 * FLOAT32
    torch.testing.assert_close(found, column(*[expected] * 3), rtol=1e-12, atol=0)
    for beta, seen in ((0.0, column(1.0, 1 + 3e-5, 0.5)), (None, column(0.1, 0.4, 0.2))):
        found, followed = compute_reach(beta, error, seen)
        assert not followed
        assert torch.equal(found, seen.max().expand(3, 1))


def test_a_distance_of_densities_of_1_is_a_factor_of_ten_either_way() -> None:
    one, other = torch.tensor([0.5, 0.05, 0.5]), torch.tensor([0.05, 0.5, 0.5])
    found = Densities(gaussian=one, counted=other).compute_log_distance()
    assert found.tolist() == pytest.approx([1, 1, 0])


def test_three_channels_have_a_rank_correlation_and_two_have_none() -> None:
    values = torch.tensor([3.0, 1.0, 2.0])
    assert rank_correlation(values, values) == pytest.approx(1)
    assert rank_correlation(values[:2], values[:2]) is None
