"""Quantization, decomposition and noise by their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnprune.theory import changes

weights = st.builds(
    lambda seed, conv, scale: (
        torch.randn(
            (6, 4, 3, 3) if conv else (6, 10), generator=torch.Generator().manual_seed(seed)
        )
        * scale
    ),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([1e-6, 1.0, 1e4]),
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(weights, st.integers(2, 12), st.booleans())
@settings(max_examples=300)
def test_quantized_weights_are_near_few_and_keep_zeros_and_signs(
    weight: torch.Tensor, bits: int, per_channel: bool
) -> None:
    weight[0, 0] = 0
    found = changes.quantize_weight(weight, bits, per_channel=per_channel)
    rows, whole = found.flatten(1).double(), weight.flatten(1).double()
    largest = whole.abs().amax(1, keepdim=True) if per_channel else whole.abs().max()
    step = largest / (2 ** (bits - 1) - 1)
    rounding = largest * 2**-22  # of float32: at 12 bits no longer far below a step
    assert ((rows - whole).abs() <= step / 2 + rounding).all()
    assert (found[weight == 0] == 0).all()
    assert (rows * whole >= 0).all()
    levels = (rows / step).round()
    assert torch.allclose(levels * step, rows, rtol=1e-5)
    assert int(levels.abs().max()) == 2 ** (bits - 1) - 1


def test_two_bits_are_three_values() -> None:
    found = changes.quantize_weight(torch.tensor([[-2.0, -0.9, 0.3, 1.1]]), 2, per_channel=False)
    assert found.tolist() == [[-2.0, 0.0, 0.0, 2.0]]


def test_a_channel_of_zeros_stays_one() -> None:
    found = changes.quantize_weight(torch.zeros(2, 3), 4, per_channel=True)
    assert found.tolist() == torch.zeros(2, 3).tolist()


@given(weights)
@settings(max_examples=100)
def test_all_ranks_are_the_weight_itself(weight: torch.Tensor) -> None:
    found, _ = changes.reduce_rank(weight, 1.0)
    assert torch.allclose(found, weight, atol=1e-5 * float(weight.abs().max()))


def test_a_linear_layer_is_nearest_of_its_rank() -> None:
    weight = torch.randn(8, 6, generator=draws())
    found, numbers = changes.reduce_rank(weight, 0.5)
    assert torch.linalg.matrix_rank(found) == 3
    assert numbers == 3 * (8 + 6)
    lost = torch.linalg.svdvals(weight)[3:].square().sum()
    assert (found - weight).square().sum() == pytest.approx(float(lost), rel=1e-4)


def test_one_rank_is_left_at_least() -> None:
    found, numbers = changes.reduce_rank(torch.randn(8, 6, generator=draws()), 0.01)
    assert torch.linalg.matrix_rank(found) == 1
    assert numbers == 8 + 6


@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (1, 6, 3, 3), (1, 1, 2)])
def test_a_convolution_of_one_channel_has_all_its_ranks(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=draws())
    found, _ = changes.reduce_rank(weight, 1.0)
    torch.testing.assert_close(found, weight)


def test_a_convolution_of_low_rank_is_found_again() -> None:
    outer, inner = torch.randn(8, 2, generator=draws(1)), torch.randn(6, 3, generator=draws(2))
    core = torch.randn(2, 3, 3, 3, generator=draws(3))
    weight = torch.einsum("rskl,or,is->oikl", core, outer, inner)
    found, numbers = changes.reduce_rank(weight, 0.5)
    assert torch.allclose(found, weight, atol=1e-4)
    assert numbers == 4 * 3 * 9 + 8 * 4 + 6 * 3


def test_ranks_of_a_convolution_are_those_that_it_has() -> None:
    weight = torch.randn(16, 1, 3, 3, generator=draws())  # of rank 9 at most over its outputs
    found, numbers = changes.reduce_rank(weight, 0.75)
    assert torch.linalg.matrix_rank(found.flatten(1)) == 7
    assert numbers == 7 * 1 * 9 + 16 * 7 + 1 * 1


def test_a_convolution_of_one_place_is_a_linear_layer() -> None:
    weight = torch.randn(64, 32, 1, 1, generator=draws())
    found, numbers = changes.reduce_rank(weight, 0.5)
    linear, wanted = changes.reduce_rank(weight.flatten(1), 0.5)
    assert torch.equal(found.flatten(1), linear)
    assert numbers == wanted == 16 * (64 + 32)


def test_a_convolution_of_groups_stays() -> None:
    weight = torch.randn(8, 2, 3, 3, generator=draws())
    found, numbers = changes.reduce_rank(weight, 0.5, groups=4)
    assert torch.equal(found, weight)
    assert numbers == weight.numel()


def test_smallest_weights_go_in_the_exact_number() -> None:
    weight = torch.tensor([[3.0, -1.0], [2.0, -0.5]])
    assert changes.drop_smallest(weight, 0.5).tolist() == [[3.0, 0.0], [2.0, 0.0]]


def test_noise_has_the_size_that_was_asked_for() -> None:
    weight = torch.randn(200, 200, generator=draws(1)) * 3
    moved = changes.add_weight_noise(weight, 0.1, draws(2)) - weight
    assert float(moved.std()) == pytest.approx(0.3, rel=0.02)
    x = torch.rand(100, 100, generator=draws(3))
    added = changes.add_gaussian_noise(x, 0.5, draws(4)) - x
    assert float(added.std()) == pytest.approx(0.5 * float(x.std()), rel=0.03)


def test_noise_goes_by_the_deviation_of_what_is_there() -> None:
    x = torch.tensor([[1.0, 5.0]])  # of which the deviation about their mean 3 is 2
    drawn = torch.randn(1, 2, generator=draws())
    for add in (changes.add_weight_noise, changes.add_gaussian_noise):
        torch.testing.assert_close(add(x, 0.25, draws()), x + 0.25 * 2 * drawn)


def spikes(steps: int = 50, places: int = 400) -> torch.Tensor:
    return (torch.rand(steps, places, generator=draws(5)) < 0.3).float()


def test_deletions_only_delete_and_insertions_only_insert() -> None:
    x = spikes()
    gone, made = (f(x, 0.2, draws()) for f in (changes.delete_spikes, changes.insert_spikes))
    assert (gone <= x).all()
    assert float(gone.sum() / x.sum()) == pytest.approx(0.8, abs=0.02)
    assert (made >= x).all()
    assert float((made - x).sum() / (x == 0).sum()) == pytest.approx(0.2, abs=0.02)
    assert set(made.unique().tolist()) == {0.0, 1.0}


def test_jitter_moves_spikes_by_one_step_and_no_farther() -> None:
    x = torch.zeros(9, 1000)
    x[4] = 1
    found = changes.jitter_spikes(x, 0.6, draws(), axis=0)
    counts = found.sum(1)
    assert counts.sum() == 1000
    assert set(counts.nonzero().squeeze(1).tolist()) == {3, 4, 5}
    assert float(counts[4]) == pytest.approx(400, abs=60)
    assert float(counts[3]) == pytest.approx(300, abs=60)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_low_draw_moves_a_spike_later_a_middle_one_earlier_and_a_high_one_not(axis: int) -> None:
    x = spikes(steps=6, places=5)
    drawn, expected = torch.rand(6, 5, generator=draws()), torch.zeros(6, 5)
    for at in x.nonzero().tolist():
        draw = float(drawn[tuple(at)])
        by = 1 if draw < 0.3 else -1 if draw < 0.6 else 0
        at[axis] = min(max(at[axis] + by, 0), x.shape[axis] - 1)
        expected[tuple(at)] = 1
    assert torch.equal(changes.jitter_spikes(x, 0.6, draws(), axis=axis), expected)


def test_at_the_ends_of_a_course_spikes_stay_in_it() -> None:
    x = torch.zeros(3, 500)
    x[0] = x[2] = 1
    found = changes.jitter_spikes(x, 1.0, draws(), axis=0)
    assert (found.sum(0) >= 1).all()
    assert set(found.unique().tolist()) == {0.0, 1.0}
