"""Numbers made of a comparison get a gradient, and stay what they are to the bit."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snnprune.measure.gradient_passes import SurrogateGradients

THRESHOLD = 0.5
OTHER = torch.linspace(-2, 3, 24).view(4, 6)

Function = Callable[[Tensor], Tensor]


def membrane() -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, generator=drawn).requires_grad_()


def slope(z: Tensor, unit: float = THRESHOLD) -> Tensor:
    """Of the smooth step: a / (2 (1 + (pi a z / 2)^2)), a = 2, z in units of the threshold."""
    return 1 / (1 + (math.pi * z / unit) ** 2) / unit


def distance(v: Tensor) -> Tensor:
    return (v - THRESHOLD).detach()


WAYS: dict[str, tuple[Function, Callable[[Tensor], Tensor]]] = {
    "float": (lambda v: (v >= THRESHOLD).float(), lambda v: slope(distance(v))),
    "to": (lambda v: (v > THRESHOLD).to(v.dtype), lambda v: slope(distance(v))),
    "type_as": (lambda v: torch.gt(v, THRESHOLD).type_as(v), lambda v: slope(distance(v))),
    "threshold first": (
        lambda v: torch.lt(torch.tensor(THRESHOLD), v).float(),
        lambda v: slope(distance(v)),
    ),
    "a tensor": (lambda v: (v >= torch.tensor(THRESHOLD)).float(), lambda v: slope(distance(v))),
    "below": (lambda v: (v < THRESHOLD).float(), lambda v: -slope(distance(v))),
    "product": (lambda v: (v > THRESHOLD) * OTHER, lambda v: OTHER * slope(distance(v))),
    "product from the left": (
        lambda v: OTHER * (v > THRESHOLD),
        lambda v: OTHER * slope(distance(v)),
    ),
    "where": (
        lambda v: torch.where(v > THRESHOLD, OTHER, 1.0),
        lambda v: (OTHER - 1) * slope(distance(v)),
    ),
    "shapes": (
        lambda v: (v > THRESHOLD).flatten().view(6, 4).float(),
        lambda v: slope(distance(v)),
    ),
    "distance": (lambda v: (v - THRESHOLD > 0).float(), lambda v: slope(distance(v), 1.0)),
    "heaviside": (
        lambda v: torch.heaviside(v - THRESHOLD, torch.tensor(1.0)),
        lambda v: slope(distance(v), 1.0),
    ),
    "sign": (
        lambda v: 0.5 * (torch.sign(v - THRESHOLD) + 1),
        lambda v: slope(distance(v), 1.0),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_value_is_the_same_and_the_gradient_that_of_a_smooth_step(way: str) -> None:
    function, expected = WAYS[way]
    v = membrane()
    plain = function(v)
    with SurrogateGradients():
        found = function(v)
    assert torch.equal(found, plain)
    (gradient,) = torch.autograd.grad(found.sum(), v)
    torch.testing.assert_close(gradient, expected(v))


def test_nothing_is_done_where_no_gradient_is_asked_for() -> None:
    v = membrane()
    with SurrogateGradients(), torch.no_grad():
        assert not (v > THRESHOLD).float().requires_grad
    with SurrogateGradients():
        assert not (v.detach() > THRESHOLD).float().requires_grad
        assert (v > THRESHOLD).dtype == torch.bool
        assert not (v > THRESHOLD).long().requires_grad
        assert int((v > THRESHOLD).sum()) == int((v.detach() > THRESHOLD).sum())


def test_a_membrane_that_is_set_back_by_its_spikes_keeps_its_course() -> None:
    def run(drive: Tensor) -> Tensor:
        v, out = torch.zeros(4, 6), []
        for _ in range(5):
            v = 0.5 * v + drive
            spikes = v > THRESHOLD
            v = v * ~spikes
            out.append(spikes.float())
        return torch.stack(out)

    drive = membrane()
    with SurrogateGradients():
        found = run(drive)
    assert torch.equal(found, run(drive))
    (gradient,) = torch.autograd.grad(found.sum(), drive)
    assert bool((gradient > 0).all())


def test_a_surrogate_of_ones_own_is_left_alone() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, v: Tensor) -> Tensor:
            return (v > THRESHOLD).float()

        @staticmethod
        def backward(ctx: object, upstream: Tensor) -> Tensor:
            return 7 * upstream

    v = membrane()
    with SurrogateGradients():
        found = Own.apply(v)
    (gradient,) = torch.autograd.grad(found.sum(), v)
    assert torch.equal(gradient, torch.full_like(v, 7))
