"""The order of removal against a search that solves everything anew at each step."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snnprune.measure import second_moments
from snnprune.measure.second_moments import compute_losses, invert

RIDGE = 1e-2


def hessian(size: int, seed: int) -> np.ndarray:
    """Second moments of correlated inputs, (d, d)."""
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(40, size)) @ drawn.normal(size=(size, size))
    return x.T @ x / len(x)


def lost(h: np.ndarray, w: np.ndarray, left: list[int]) -> float:
    """min E|(w - v) x|^2 over v that is 0 but in `left`."""
    v = np.zeros(len(w))
    if left:
        v[left] = np.linalg.solve(h[np.ix_(left, left)], h[left] @ w)
    return float((w - v) @ h @ (w - v))


def searched(h: np.ndarray, w: np.ndarray) -> tuple[list[int], list[float]]:
    """At each step the removal after which the least is lost; the order, and what each adds."""
    left, order, added, before = list(range(len(w))), [], [], 0.0
    while left:
        after = {q: lost(h, w, [p for p in left if p != q]) for q in left}
        gone = min(after, key=lambda q: after[q])
        order.append(gone)
        added.append(after[gone] - before)
        left.remove(gone)
        before = after[gone]
    return order, added


def case(size: int, seed: int, out: int = 3) -> tuple[np.ndarray, Tensor]:
    """A damped H and rows (1, out, d)."""
    h = hessian(size, seed)
    h = h + RIDGE * np.diag(h).mean() * np.eye(size)
    return h, torch.randn(1, out, size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 2, 7])
def test_values_are_those_of_a_search_that_solves_anew_at_each_step(size: int, seed: int) -> None:
    h, rows = case(size, seed)
    found = compute_losses(invert(torch.from_numpy(hessian(size, seed))[None], RIDGE), rows)[0]
    for values, row in zip(found.numpy(), rows[0].numpy(), strict=True):
        order, added = searched(h, row)
        expected = np.maximum.accumulate(added)
        np.testing.assert_allclose(values[order], expected, rtol=1e-7, atol=1e-12)
        assert np.all(np.diff(values[order]) >= 0)
        assert sum(added) == pytest.approx(row @ h @ row)  # with nothing left all is lost


def test_rows_that_lose_a_little_at_first_lose_no_less_later() -> None:
    """Two inputs that are the same: one goes for nothing, the other with both weights."""
    matrix = torch.ones(1, 2, 2, dtype=torch.float64)
    weights = torch.tensor([[[1.0, 2.0]]])
    first, second = compute_losses(invert(matrix, 1e-9), weights)[0, 0].tolist()
    assert first == pytest.approx(0, abs=1e-8)
    assert second == pytest.approx(9)  # (1 + 2)^2 E[x^2]


def test_all_at_once_is_the_first_look_of_the_surgeon() -> None:
    h, rows = case(6, 5)
    found = compute_losses(invert(torch.from_numpy(hessian(6, 5))[None], RIDGE), rows, exact=False)
    expected = rows[0].numpy() ** 2 / np.diag(np.linalg.inv(h))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9)


def one_by_one(h: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The values of a row, H^-1 losing a row and a column each time."""
    inverse, w, left, level = np.linalg.inv(h), w.copy(), list(range(len(w))), 0.0
    values = np.zeros(len(w))
    while left:
        worth = w**2 / np.diag(inverse)
        q = int(worth.argmin())
        level = max(level, worth[q])
        values[left.pop(q)] = level
        w = np.delete(w - inverse[q] * w[q] / inverse[q, q], q)
        inverse = inverse - np.outer(inverse[q], inverse[q]) / inverse[q, q]
        inverse = np.delete(np.delete(inverse, q, 0), q, 1)
    return values


@pytest.mark.parametrize("size", [31, 64, 65, 150, 291])
def test_many_weights_go_as_if_each_step_were_written_out(size: int) -> None:
    drawn = np.random.default_rng(size)
    inputs = (drawn.random((3 * size, size)) < 0.3).astype(np.float64)
    h = inputs.T @ inputs / len(inputs) + 0.01 * np.eye(size)
    rows = torch.from_numpy(drawn.standard_normal((1, 3, size)))
    found = compute_losses(torch.from_numpy(np.linalg.inv(h))[None], rows, exact=True)[0]
    for values, row in zip(found.numpy(), rows[0].numpy(), strict=True):
        np.testing.assert_allclose(values, one_by_one(h, row), rtol=1e-8)


def test_a_layer_that_is_too_wide_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    h, rows = torch.from_numpy(hessian(6, 5))[None], case(6, 5)[1]
    exact = compute_losses(invert(h, RIDGE), rows)
    monkeypatch.setattr(second_moments, "WORK", 3 * 6**3 - 1)
    found = compute_losses(invert(h, RIDGE), rows)
    assert torch.equal(found, compute_losses(invert(h, RIDGE), rows, exact=False))
    assert not torch.equal(found, exact)


def test_independent_inputs_are_worth_their_own_energy() -> None:
    matrix = torch.diag(torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64))[None]
    weights = torch.tensor([[[3.0, -1.0, 2.0]]])
    found = compute_losses(invert(matrix, 0.0), weights)
    torch.testing.assert_close(found, torch.tensor([[[9.0, 4.0, 1.0]]], dtype=torch.float64))


def test_each_group_has_its_own_inputs() -> None:
    matrices = torch.stack([torch.from_numpy(hessian(5, seed)) for seed in (1, 2)])
    rows = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    together = compute_losses(invert(matrices, RIDGE), rows)
    for group in range(2):
        part = slice(group, group + 1)
        alone = compute_losses(invert(matrices[part], RIDGE), rows[part])
        torch.testing.assert_close(together[part], alone)


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.from_numpy(hessian(6, 1))[None]
    rows = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1))
    whole = compute_losses(invert(matrix, RIDGE), rows)
    monkeypatch.setattr("snnprune.measure.second_moments.MEMORY", 8 * 36 * 2)
    torch.testing.assert_close(compute_losses(invert(matrix, RIDGE), rows), whole)


def test_a_layer_without_input_loses_next_to_nothing() -> None:
    found = compute_losses(
        invert(torch.zeros(1, 3, 3, dtype=torch.float64), RIDGE), torch.ones(1, 2, 3)
    )
    assert found.isfinite().all()
    assert float(found.max()) < 1e-10
