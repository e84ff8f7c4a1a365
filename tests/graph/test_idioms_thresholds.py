"""Thresholds of any kind and dynamics however they are written: the same neuron."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from idioms import THRESHOLD, WIDTH, Facts, Residual, agrees, facts, hard, lively, residual, same
from torch import Tensor, nn
from torch.nn import functional

LEVELS = torch.linspace(0.3, 0.7, WIDTH)
ONE = torch.tensor(THRESHOLD)


class Compares(nn.Module):
    """A neuron with a threshold that `read` makes of a parameter (or number) `held`."""

    def __init__(self, held: Any, read: Callable[[Any], Any], *, distance: bool) -> None:
        super().__init__()
        if isinstance(held, Tensor):
            self.held = nn.Parameter(held.clone())
        else:
            self.held = held
        self.read, self.distance = read, distance

    def forward(self, x: Tensor) -> Tensor:
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = 0.5 * u + current
            threshold = self.read(self.held)
            s = (u - threshold >= 0).float() if self.distance else (u >= threshold).float()
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)


class Buffered(Compares):
    """Its threshold is a buffer."""

    def __init__(self, held: Tensor, *, distance: bool = True) -> None:
        super().__init__(None, lambda _: self.level, distance=distance)
        self.register_buffer("level", held.clone())


PER_CHANNEL: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "parameter": (LEVELS, lambda p: p),
    "view": (LEVELS, lambda p: p.view(1, -1)),
    "index": (LEVELS, lambda p: p[None, :]),
    "list": (LEVELS.tolist(), lambda p: torch.tensor(p)),
    "exp": (LEVELS.log(), lambda p: p.exp()),
    "absolute value": (-LEVELS, lambda p: p.abs()),
    "clamp": (LEVELS, lambda p: p.clamp(min=0.1).view(1, -1).expand(6, -1)),
}
ALIKE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "number": (THRESHOLD, lambda p: p),
    "parameter": (ONE, lambda p: p),
    "fresh tensor": (THRESHOLD, lambda p: torch.full((6, WIDTH), p)),
    "exp": (ONE.log(), lambda p: p.exp()),
    "softplus": (ONE.expm1().log(), functional.softplus),
    "sigmoid": (torch.logit(ONE), lambda p: p.sigmoid()),
}


def leaky_at(level: Any) -> Any:
    def step(current: Tensor, u: Any) -> Any:
        u = current if u is None else 0.5 * u + current
        spikes = (u >= level).double()
        return u - level, spikes, u * (1 - spikes)

    return step


@pytest.fixture(scope="module")
def per_channel() -> Facts:
    return facts(lively(lambda: Residual(lambda: Buffered(LEVELS))))


@pytest.fixture(scope="module")
def alike() -> Facts:
    return facts(lively(lambda: Residual(lambda: Buffered(ONE))))


def test_thresholds_per_channel_are_as_a_simulation_says(per_channel: Facts) -> None:
    agrees(per_channel, per_channel.network.module, leaky_at(LEVELS.double()))


@pytest.mark.parametrize("way", PER_CHANNEL)
def test_a_threshold_per_channel_is_known(way: str, per_channel: Facts) -> None:
    held, read = PER_CHANNEL[way]
    distance = way in ("parameter", "index", "exp")
    found = facts(lively(lambda: Residual(lambda: Compares(held, read, distance=distance))))
    same(found, per_channel)


@pytest.mark.parametrize("way", ALIKE)
def test_one_threshold_for_all_is_known(way: str, alike: Facts) -> None:
    held, read = ALIKE[way]
    distance = way in ("parameter", "softplus", "fresh tensor")
    same(facts(lively(lambda: Residual(lambda: Compares(held, read, distance=distance)))), alike)


class Adaptive(nn.Module):
    """The threshold rises with the spikes before; `fires` takes u and the threshold to spikes."""

    def __init__(self, fires: Callable[[Tensor, Tensor], Tensor], *, fresh: bool = True) -> None:
        super().__init__()
        self.fires, self.fresh = fires, fresh

    def forward(self, x: Tensor) -> Tensor:
        zero: Any = torch.zeros_like(x[0]) if self.fresh else 0.0
        u, b, s, out = zero, zero, zero, []
        for current in x:
            b = 0.8 * b + 0.2 * s
            u = 0.5 * u * (1 - s) + current
            s = self.fires(u, 0.3 + 0.5 * b)
            out.append(s)
        return torch.stack(out)


def adaptive(current: Tensor, state: Any) -> Any:
    u, b, s = state or (torch.zeros_like(current),) * 3
    b = 0.8 * b + 0.2 * s
    u, level = 0.5 * u * (1 - s) + current, 0.3 + 0.5 * b
    spikes = (u >= level).double()
    return u - level, spikes, (u, b, spikes)


ADAPTIVE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "distance": lambda u, level: ((u - level) >= 0).float(),
    "comparison": lambda u, level: (u >= level).to(u),
    "threshold first": lambda u, level: (level <= u).float(),
    "where": lambda u, level: torch.where(u >= level, 1.0, 0.0),
    "heaviside": lambda u, level: torch.heaviside(u.sub(level), torch.ones(1)),
}


@pytest.mark.parametrize(
    ("way", "fresh"), [*((way, True) for way in ADAPTIVE), ("distance", False), ("where", False)]
)
def test_an_adaptive_threshold_belongs_to_its_neuron(way: str, fresh: bool) -> None:
    module = lively(lambda: Residual(lambda: Adaptive(ADAPTIVE[way], fresh=fresh)))
    found = facts(module)
    agrees(found, module, adaptive)
    assert found.drives("second") == ["lif2"]
    constants = found.network.neurons["lif2"].constants
    assert (constants.beta, constants.decay_input) == (0.5, False)


def test_a_distance_that_is_a_share_of_an_adaptive_threshold_has_no_made_up_decay() -> None:
    found = facts(
        lively(lambda: Residual(lambda: Adaptive(lambda u, b: ((u - b) / b >= 0).float())))
    )
    assert list(found.network.neurons) == ["lif1", "lif2"]
    assert found.network.neurons["lif1"].constants.beta is None


Update = Callable[[Any, Tensor, Any], Tensor]
"""From u, current and 1 - beta to the next u."""


class Learns(nn.Module):
    """Its decay is a parameter; `read` makes 1 - beta of it."""

    def __init__(self, held: Tensor, read: Callable[[Tensor], Any], update: Update) -> None:
        super().__init__()
        self.w, self.read, self.update = nn.Parameter(held.clone()), read, update

    def forward(self, x: Tensor) -> Tensor:
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = self.update(u, current, self.read(self.w))
            s = hard(u)
            u = (1.0 - s) * u
            out.append(s)
        return torch.stack(out)


UPDATES: dict[str, Update] = {
    "difference times": lambda u, x, a: u + (x - u) * a,
    "difference over": lambda u, x, a: u + (x - u) / (1.0 / a),
    "difference to rest": lambda u, x, a: u + (x - (u - 0.0)) * a,
    "shares": lambda u, x, a: (1 - a) * u + a * x,
    "numbers": lambda u, x, a: 0.5 * u + (1 - 0.5) * x,
    "over a number": lambda u, x, a: u + (x - u) / 2.0,
    "time constant": lambda u, x, a: math.exp(-math.log(2)) * u + (1 - math.exp(-math.log(2))) * x,
}


def taking(current: Tensor, u: Any) -> Any:
    u = 0.5 * current if u is None else u + (current - u) * 0.5
    spikes = (u >= THRESHOLD).double()
    return u - THRESHOLD, spikes, u * (1 - spikes)


@pytest.mark.parametrize("way", UPDATES)
def test_what_a_neuron_does_to_its_input_is_no_gain_of_the_layer(way: str) -> None:
    module = lively(lambda: Residual(lambda: Learns(torch.zeros(1), torch.sigmoid, UPDATES[way])))
    found = facts(module)
    agrees(found, module, taking)
    constants = found.network.neurons["lif2"].constants
    assert (constants.beta, constants.decay_input) == (0.5, True)
    assert not found.network.layers["second.weight"].links[0].gains


def test_a_decay_per_channel_is_that_channels_wherever_it_comes_from() -> None:
    shares = torch.linspace(0.3, 0.8, WIDTH)
    update = UPDATES["shares"]
    direct = facts(lively(lambda: Residual(lambda: Learns(shares, lambda w: w, update))))
    learnt = facts(
        lively(lambda: Residual(lambda: Learns(torch.logit(shares), torch.sigmoid, update)))
    )
    same(learnt, direct)
    constants = direct.network.neurons["lif1"].constants
    assert (constants.beta, constants.decay_input) == (None, True)


def synaptic(update: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def over(x: Tensor) -> Tensor:
        i = u = torch.zeros_like(x[0])
        out = []
        for current in x:
            i = 0.6 * i + current
            u = update(u, i)
            s = hard(u)
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)

    return over


def two_filters(current: Tensor, state: Any) -> Any:
    u, i = state or (torch.zeros_like(current),) * 2
    i = 0.6 * i + current
    u = 0.5 * u + i
    spikes = (u >= THRESHOLD).double()
    return u - THRESHOLD, spikes, (u * (1 - spikes), i)


def test_a_synaptic_current_is_part_of_its_neuron() -> None:
    module = residual(synaptic(lambda u, i: 0.5 * u + i))
    found = facts(module)
    agrees(found, module, two_filters)
    assert found.network.neurons["lif1"].constants.beta == 0.5
    same(facts(residual(synaptic(lambda u, i: torch.add(i, u, alpha=0.5)))), found)


def subtracting(reset: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def over(x: Tensor) -> Tensor:
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = 0.5 * u + current
            s = hard(u)
            u = reset(u, s)
            out.append(s)
        return torch.stack(out)

    return over


def late(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), []
    for current in x:
        again = (u >= THRESHOLD).float()
        u = 0.5 * u + current - 0.5 * THRESHOLD * again
        out.append(hard(u))
    return torch.stack(out)


def by_index(u: Tensor, s: Tensor) -> Tensor:
    u[s > 0] -= THRESHOLD
    return u


def softly(current: Tensor, u: Any) -> Any:
    u = current if u is None else 0.5 * u + current
    spikes = (u >= THRESHOLD).double()
    return u - THRESHOLD, spikes, u - THRESHOLD * spikes


RESETS: dict[str, Callable[[Tensor], Tensor]] = {
    "a difference": subtracting(lambda u, s: u - THRESHOLD * s),
    "detached": subtracting(lambda u, s: u - s.detach() * torch.tensor(THRESHOLD)),
    "where": subtracting(lambda u, s: torch.where(s > 0, u - THRESHOLD, u)),
    "an index": subtracting(by_index),
    "in place": subtracting(lambda u, s: u.sub_(s, alpha=THRESHOLD)),
    "compared again": subtracting(lambda u, s: u - (u >= THRESHOLD) * THRESHOLD),
    "compared a step later": late,
}


@pytest.mark.many(4)
@pytest.mark.parametrize("way", RESETS)
def test_the_decay_of_a_neuron_that_subtracts_is_known(way: str) -> None:
    module = residual(RESETS[way])
    found = facts(module)
    agrees(found, module, softly)
    constants = found.network.neurons["lif2"].constants
    assert (constants.beta, constants.decay_input) == (0.5, False)
