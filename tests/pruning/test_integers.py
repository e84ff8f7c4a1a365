"""Weights on grids of integers: the core, against OBQ written out by hand."""

import pytest
import torch
from torch import Tensor

from snnprune.pruning.repair import quantize
from snnprune.pruning.repair.quantize import (
    IntegerWeight,
    choose_scales,
    compensate,
    compute_currents_lost,
    count_levels,
    multiply_scales,
    quantize_rows,
    round_to_grid,
)

RIDGE = 0.01


def drawn(
    size: int, rows: int, density: float, *, groups: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """E[x x'] of spikes that go together, weights, and which are kept."""
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    second = []
    for _ in range(groups):
        currents = normal(500, size // 2) @ normal(size // 2, size) + 0.5 * normal(500, size)
        spikes = (currents > 1).double()
        second.append(spikes.T @ spikes / len(spikes))
    keep = torch.rand(groups, rows, size, generator=draws) < density
    return torch.stack(second), normal(groups, rows, size) * keep, keep


def obq(matrix: Tensor, weight: Tensor, keep: Tensor, scale: float, bits: int) -> Tensor:
    """Integers of one row, its inverse taken anew after each weight; arXiv 2208.11580, Eq. 7."""
    raised = matrix + RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix))
    free = keep.nonzero().flatten().tolist()
    weight, found = weight.clone(), torch.zeros_like(weight)
    most = 2 ** (bits - 1) - 1
    while free:
        inverse = torch.linalg.inv(raised[free][:, free])
        nearest = (weight[free] / scale).round().clamp(-most, most)
        error = weight[free] - nearest * scale
        first = int((error**2 / inverse.diagonal()).argmin())
        found[free[first]] = nearest[first]
        weight[free] -= error[first] / inverse[first, first] * inverse[:, first]
        free.pop(first)
    return found


def lost(matrix: Tensor, found: Tensor, scales: Tensor, weights: Tensor) -> float:
    return float(compute_currents_lost(matrix, found * scales - weights).sum())


@pytest.mark.parametrize(("bits", "density"), [(2, 0.5), (3, 0.2), (4, 0.5), (4, 1.0), (8, 0.5)])
def test_the_order_and_the_integers_are_those_of_obq(bits: int, density: float) -> None:
    matrix, weights, keep = drawn(40, 12, density, groups=2)
    scales = choose_scales(weights, bits)
    found = compensate(matrix, weights, keep, scales, bits, ridge=RIDGE)
    for group in range(2):
        for row in range(12):
            given = (matrix[group], weights[group, row], keep[group, row])
            expected = obq(*given, float(scales[group, row]), bits)
            assert torch.equal(found[group, row], expected)


def test_rows_that_do_not_fit_into_memory_together_come_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, weights, keep = drawn(30, 20, 0.4)
    keep[0, 3] = False  # and one has nothing
    weights = weights * keep
    scales = choose_scales(weights, 4)
    whole = compensate(matrix, weights, keep, scales, 4, ridge=RIDGE)
    monkeypatch.setattr(quantize, "MEMORY", 8 * 30**2)
    assert torch.equal(compensate(matrix, weights, keep, scales, 4, ridge=RIDGE), whole)
    assert not whole[0, 3].any()


def test_in_a_fixed_order_the_weights_are_those_of_gptq(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing pruned one factor for all rows and one for each are the same, and the plain way
    with an inverse that is taken anew."""
    matrix, weights, keep = drawn(24, 8, 1.0)
    scales = choose_scales(weights, 4)
    monkeypatch.setattr(quantize, "GREEDY_WORK", 0)
    own = compensate(matrix, weights, keep, scales, 4, ridge=RIDGE)
    monkeypatch.setattr(quantize, "OWN_WORK", 0)
    together = compensate(matrix, weights, keep, scales, 4, ridge=RIDGE)
    assert torch.equal(own, together)
    raised = matrix[0] + RIDGE * matrix[0].diagonal().mean() * torch.eye(24)
    order = matrix[0].diagonal().argsort(descending=True, stable=True).tolist()
    held, expected = weights[0].clone(), torch.zeros_like(weights[0])
    for place, column in enumerate(order):
        free = order[place:]
        inverse = torch.linalg.inv(raised[free][:, free])
        nearest = round_to_grid(held[:, column : column + 1], scales[0], 4)
        error = held[:, column : column + 1] - nearest * scales[0]
        expected[:, column] = nearest.flatten()
        held[:, free] -= error * inverse[0] / inverse[0, 0]
    assert torch.equal(own[0], expected)


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_each_way_beats_rounding_and_the_dearer_one_the_cheaper(
    monkeypatch: pytest.MonkeyPatch, density: float
) -> None:
    matrix, weights, keep = drawn(120, 48, density)
    scales = choose_scales(weights, 4)
    found = [round_to_grid(weights, scales, 4)]
    for limit in ("", "GREEDY_WORK", "OWN_WORK"):
        if limit:
            monkeypatch.setattr(quantize, limit, 0)
        found.insert(1, compensate(matrix, weights, keep, scales, 4, ridge=RIDGE))
    rounded, together, own, greedy = (lost(matrix, one, scales, weights) for one in found)
    assert rounded > 1.2 * together
    assert together > own > greedy
    assert all(not one[~keep].any() for one in found)


def test_the_dearer_way_is_gone_as_far_as_its_work_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, weights, keep = drawn(30, 12, 0.5)
    scales = choose_scales(weights, 4)
    work = float((keep.sum(-1) ** 3).sum())

    def found(greedy: float, own: float) -> Tensor:
        monkeypatch.setattr(quantize, "GREEDY_WORK", greedy)
        monkeypatch.setattr(quantize, "OWN_WORK", own)
        return compensate(matrix, weights, keep, scales, 4, ridge=RIDGE)

    in_order, by_itself, together = found(work, work), found(0, work), found(0, 0)
    assert not torch.equal(in_order, by_itself)
    assert not torch.equal(by_itself, together)
    assert torch.equal(found(work - 1, work / 3), by_itself)
    assert torch.equal(found(0, (work - 1) / 3), together)


def test_a_row_is_never_worse_than_rounded() -> None:
    matrix, weights, keep = drawn(20, 40, 0.3, seed=3)
    weights[0, :, 0] = torch.where(keep[0, :, 0], 50.0, 0.0)  # a coarse grid
    scales = choose_scales(weights, 3)
    found = quantize_rows(matrix, weights, keep, scales, 3, ridge=RIDGE)
    rounded = round_to_grid(weights, scales, 3)
    costs = [
        compute_currents_lost(matrix, one * scales - weights)[0]
        for one in (found.integers, rounded)
    ]
    assert bool((costs[0] <= costs[1]).all())
    total = compute_currents_lost(matrix, weights).sum()
    assert found.lost == pytest.approx(float(costs[0].sum() / total))
    assert found.lost_by_rounding == pytest.approx(float(costs[1].sum() / total))


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
def test_the_grid_is_read_back_from_float32_weights(bits: int) -> None:
    draws = torch.Generator().manual_seed(bits)
    sizes = 10.0 ** torch.randint(-12, 4, (2000, 1), generator=draws)
    weights = torch.randn(2000, 60, generator=draws) * sizes
    weights[0], weights[1] = 0, 1e-40
    scales = choose_scales(weights, bits)
    found = round_to_grid(weights, scales, bits)
    assert found.abs().max() == count_levels(bits)
    held = multiply_scales(found, scales)
    again = (held / scales).round()
    assert torch.equal(again.double(), found)
    assert torch.equal(again * scales, held)
    assert scales[0] == 1
    assert not held[0].any()


def test_the_same_is_found_twice() -> None:
    matrix, weights, keep = drawn(64, 32, 0.3)
    scales = choose_scales(weights, 4)
    one, other = (compensate(matrix, weights, keep, scales, 4, ridge=RIDGE) for _ in range(2))
    assert torch.equal(one, other)


def test_integers_of_a_parameter_take_the_shape_that_a_weight_is_written_in() -> None:
    held = IntegerWeight(
        integers=torch.tensor([[1, -2, 3], [4, 0, -6]], dtype=torch.int8),
        scale=torch.tensor([[0.5], [2.0]]),
    )
    weight = torch.tensor([[0.5, -1.0, 1.5], [8.0, 0.0, -12.0]])
    assert torch.equal(held.multiply(), weight)
    integers, scale = held.shape_as((2, 3))
    assert (integers.shape, scale.shape) == ((2, 3), (2, 1))
    for shape in ((3, 2), (6,), (2, 3, 1, 1)):
        integers, scale = held.shape_as(shape)
        assert integers.shape == shape
        assert integers.dtype == torch.int8
        assert torch.equal(integers * scale, weight.view(shape))


def test_with_gains_all_products_are_multiples_of_one_step() -> None:
    weights, gains = torch.tensor([[0.5, -1.0], [4.0, 1.0]]), torch.tensor([3.0, -0.5])
    scales = choose_scales(weights, 8, gains)
    steps = scales.squeeze(1) * gains.abs()
    assert torch.allclose(steps, torch.full((2,), 3.0 / 127))  # |3 * -1| is the largest product
    alone = choose_scales(weights, 8, torch.tensor([3.0, 0.0]))
    assert torch.equal(alone[1], choose_scales(weights, 8)[1])
