"""What an error of the membrane may do to a spike, worked out on a histogram of four bins."""

import pytest
import torch
from torch import Tensor

from snnprune.measure.calibration import NeuronStatistics
from snnprune.theory.bounds import density_bound

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
