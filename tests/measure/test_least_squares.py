"""The fit of kept weights against numpy's direct solution of each row."""

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from snnprune.measure import second_moments
from snnprune.measure.second_moments import GramSum, fit_weights

RIDGE = 1e-2


def inputs(groups: int, rows: int, size: int, *, alike: float, seed: int) -> Tensor:
    """Inputs (groups, rows, size) float64 of which the share `alike` is common to all."""
    drawn = torch.Generator().manual_seed(seed)
    own = torch.randn(groups, rows, size, generator=drawn, dtype=torch.float64)
    common = torch.randn(groups, rows, 1, generator=drawn, dtype=torch.float64)
    return alike * common + (1 - alike) * own


def solved(x: Tensor, y: Tensor, keep: Tensor, start: Tensor) -> np.ndarray:
    """Each row of its own by the normal equations of what it keeps, written out."""
    found = np.zeros(keep.shape)
    for group, out in np.ndindex(keep.shape[0], keep.shape[1]):
        kept = keep[group, out].numpy()
        if not kept.any():
            continue
        a, b = x[group].numpy(), y[group, :, out].numpy()
        pull = RIDGE * np.mean(a**2)
        left = a[:, kept].T @ a[:, kept] / len(a) + pull * np.eye(kept.sum())
        right = a[:, kept].T @ b / len(a) + pull * start[group, out].numpy()[kept]
        found[group, out, kept] = np.linalg.solve(left, right)
    return found


def moments(x: Tensor, y: Tensor) -> GramSum:
    taken = GramSum()
    for part_x, part_y in zip(x.split(17, dim=1), y.split(17, dim=1), strict=True):
        taken.add(part_x, part_y)
    return taken


def fitted(taken: GramSum, keep: Tensor, start: Tensor) -> Tensor:
    found = taken.finish(free=False)
    return fit_weights(found.matrix, found.cross, keep, start, ridge=RIDGE)


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("groups", "out", "size"), [(1, 6, 40), (3, 4, 9), (8, 1, 9)])
def test_every_row_is_the_ridge_solution_of_what_it_keeps(
    alike: float, share: float, groups: int, out: int, size: int
) -> None:
    x = inputs(groups, 101, size, alike=alike, seed=1)
    y = inputs(groups, 101, out, alike=0.2, seed=2) + x[..., :1]
    drawn = torch.Generator().manual_seed(3)
    keep = torch.rand(groups, out, size, generator=drawn) <= share
    start = torch.randn(groups, out, size, generator=drawn, dtype=torch.float64)
    taken = moments(x, y)
    found = fitted(taken, keep, start)
    expected = solved(x, y, keep, start)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4 * abs(expected).max())
    assert not found[~keep].any()


def test_a_row_that_keeps_nothing_is_0_beside_one_that_keeps_all() -> None:
    x, y = inputs(1, 50, 6, alike=0.3, seed=1), inputs(1, 50, 2, alike=0.3, seed=2)
    keep = torch.tensor([[[False] * 6, [True] * 6]])
    start = torch.ones(1, 2, 6, dtype=torch.float64)
    taken = moments(x, y)
    found = fitted(taken, keep, start)
    assert not found[0, 0].any()
    np.testing.assert_allclose(found.numpy(), solved(x, y, keep, start), rtol=1e-4, atol=1e-6)


def test_weights_of_silent_inputs_stay_what_they_are() -> None:
    x = inputs(1, 50, 6, alike=0.3, seed=1)
    x[..., 2] = 0
    y = inputs(1, 50, 3, alike=0.3, seed=2)
    start = torch.full((1, 3, 6), 2.0, dtype=torch.float64)
    taken, keep = moments(x, y), torch.ones(1, 3, 6, dtype=torch.bool)
    found = fitted(taken, keep, start)
    torch.testing.assert_close(found[..., 2], start[..., 2])
    torch.testing.assert_close(
        found, torch.from_numpy(solved(x, y, keep, start)), rtol=1e-4, atol=0
    )


def test_a_layer_that_gets_nothing_stays_what_it_is() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.float64)
    start = torch.arange(12, dtype=torch.float64).view(1, 3, 4)
    keep = start % 2 == 0
    found = fit_weights(
        nothing, torch.zeros(1, 4, 3, dtype=torch.float64), keep, start, ridge=RIDGE
    )
    assert torch.equal(found, start * keep)


def test_the_covariances_of_a_free_mean_are_those_of_numpy() -> None:
    x, y = inputs(2, 60, 4, alike=0.2, seed=1) + 3, inputs(2, 60, 3, alike=0.2, seed=2) - 1
    taken = moments(x, y)
    again = taken.gram(free=True).compute_matrix()
    found = taken.finish(free=True)
    assert torch.equal(again, found.matrix)
    for group in range(2):
        together = np.cov(torch.cat([x[group], y[group]], 1).numpy().T, bias=True)
        gram, cross = found.matrix[group], found.cross[group]
        np.testing.assert_allclose(gram.numpy(), together[:4, :4], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(cross.numpy(), together[:4, 4:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_spikes_that_meet_are_counted_exactly_in_any_type(dtype: torch.dtype) -> None:
    spikes = torch.ones(1, 5001, 2, dtype=dtype)
    taken = GramSum()
    taken.add(spikes)
    assert taken.second.tolist() == [[[5001.0, 5001.0], [5001.0, 5001.0]]]
    assert taken.gram(free=False).mean.tolist() == [[1.0, 1.0]]


def test_products_taken_strip_by_strip_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snnprune.measure.second_moments.STRIP", 3)
    x = inputs(2, 30, 7, alike=0.4, seed=1)
    taken = GramSum()
    taken.add(x)
    expected = np.einsum("gni,gnj->gij", x.numpy(), x.numpy())
    found = taken.finish(free=False).matrix * 30
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("usual_steps", [0, 10**9])
def test_rows_one_by_one_and_all_together_are_the_ridge_solution(
    usual_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "USUAL_STEPS", usual_steps)  # which chooses the way
    monkeypatch.setattr(second_moments, "MEMORY", 4 * 8 * 20**2 * 3)  # three rows at a time
    x, y = inputs(2, 200, 40, alike=0.6, seed=1), inputs(2, 200, 11, alike=0.2, seed=2)
    drawn = torch.Generator().manual_seed(3)
    keep = torch.rand(2, 11, 40, generator=drawn) < torch.linspace(0, 1, 11).view(1, -1, 1)
    start = torch.randn(2, 11, 40, generator=drawn, dtype=torch.float64)
    taken = moments(x, y)
    found = fitted(taken, keep, start)
    closeness = 1e-4 if usual_steps == 0 else 1e-9
    expected = solved(x, y, keep, start)
    np.testing.assert_allclose(found.numpy(), expected, atol=closeness * abs(expected).max())
    assert not found[~keep].any()


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("signed", [False, True])
def test_sums_of_decayed_spikes_are_multiplied_exactly(
    steps: int, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "LEAST_EXACT", 1)
    drawn = torch.Generator().manual_seed(1)
    gathered = torch.zeros(1, 40_001, 6)
    for _ in range(steps):
        gathered = gathered / 2 + (torch.rand(1, 40_001, 6, generator=drawn) < 0.6)
    if signed:
        gathered -= 1
    taken = GramSum()
    taken.add(gathered)
    whole = (gathered[0].double() * 2**steps).long()
    assert torch.equal(taken.second[0] * 4**steps, (whole.T @ whole).double())
    assert second_moments._count_exact_rows(gathered) >= 2**24 / 4 ** (steps + 1)


def refuse(*_: object) -> NoReturn:
    raise AssertionError("it was not to be asked for")


def count_products(x: Tensor) -> Tensor:
    """x' x of rows (1, n, d), (d, d)."""
    taken = GramSum()
    taken.add(x)
    return taken.finish(free=False).matrix[0] * x.shape[1]


@pytest.mark.parametrize("size", [128, 131, 1100])
@pytest.mark.parametrize(("scale", "most"), [(1, 1), (8, 15), (32, 127), (1, 127)])
def test_products_of_bytes_are_those_of_the_whole_numbers_that_they_stand_for(
    size: int, scale: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "EXACT_BYTES", 900 * 127**2)  # some rows at a time
    drawn = torch.Generator().manual_seed(scale)
    whole = torch.randint(-most, most + 1, (2048, size), generator=drawn)
    found = count_products(whole.float()[None] / scale)
    assert torch.equal(found * scale**2, (whole.T.double() @ whole.double()))


def test_what_is_no_byte_is_not_multiplied_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments, "multiplies_bytes_well", lambda _: True)
    monkeypatch.setattr(torch, "_int_mm", refuse)
    x = torch.full((1, 2048, 128), 128.0)
    assert (count_products(x) == 2048 * 128.0**2).all()
    assert (count_products(x / 256 + 1e-3) > 0).all()


def return_other(a: Tensor, b: Tensor) -> Tensor:
    """As where sums of two products overflow."""
    return a.int() @ b.int() - 1


def give_up(*_: Tensor) -> NoReturn:
    raise RuntimeError("not implemented")


@pytest.mark.parametrize("multiply", [return_other, give_up, None])
def test_bytes_that_a_machine_multiplies_wrongly_or_not_at_all_are_not_taken(
    multiply: Callable[[Tensor, Tensor], Tensor] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "_time", lambda _: refuse())
    if multiply is None:
        monkeypatch.delattr(torch, "_int_mm")
    else:
        monkeypatch.setattr(torch, "_int_mm", multiply)
    assert not second_moments.multiplies_bytes_well.__wrapped__(torch.device("cpu"))


@pytest.mark.parametrize(("of_bytes", "well"), [(1.0, True), (2.0, False)])
def test_bytes_that_take_longer_are_not_taken(
    of_bytes: float, well: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([of_bytes, 1.5])
    monkeypatch.setattr(second_moments, "_time", lambda _: next(times))
    assert second_moments.multiplies_bytes_well.__wrapped__(torch.device("cpu")) == well
    assert not second_moments.multiplies_bytes_well.__wrapped__(torch.device("cuda"))


def test_where_torch_may_round_what_it_multiplies_float64_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spikes = torch.ones(1, 5000, 2)
    assert second_moments._count_exact_rows(spikes) == 2**24
    for precision in ("high", "medium"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda p=precision: p)
        assert second_moments._count_exact_rows(spikes) == 0

    def refuse() -> str:
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    assert second_moments._count_exact_rows(spikes) == 0


def test_other_inputs_are_multiplied_in_float64() -> None:
    drawn = torch.Generator().manual_seed(1)
    x = torch.cat([torch.ones(1, 64, 3), torch.rand(1, 5000, 3, generator=drawn)], 1)
    taken = GramSum()
    taken.add(x)
    assert second_moments._count_exact_rows(x) == 0
    expected = x[0].double().T @ x[0].double()
    torch.testing.assert_close(taken.second[0], expected, rtol=1e-13, atol=0)
