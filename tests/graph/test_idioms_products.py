"""Spikes of several neurons that meet, and neurons that share a current or a place in the code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from idioms import DECAY, STEPS, THRESHOLD, Facts, Neuron, facts, hard, lively, plain, same
from torch import Tensor, nn
from torch.nn import functional


class Joined(nn.Module):
    """Three branches behind one neuron, joined before the next layer."""

    def __init__(self, join: Callable[["Joined", Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.lif = nn.Linear(9, 8), Neuron(plain)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(3))
        self.lif_q, self.lif_k, self.lif_v = (Neuron(plain) for _ in range(3))
        self.attention, self.proj = Neuron(plain), nn.Linear(8, 8)
        self.lif_p, self.out = Neuron(plain), nn.Linear(8, 3)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif(self.stem(x.transpose(0, 1)))
        layers = (self.q, self.k, self.v)
        neurons = (self.lif_q, self.lif_k, self.lif_v)
        parts = [
            neuron(norm(layer(s).flatten(0, 1)).view_as(s))
            for layer, norm, neuron in zip(layers, self.norms, neurons, strict=True)
        ]
        return self.out(self.lif_p(self.proj(self.join(self, *parts)))).sum(0)


def attention(net: Joined, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (4, 2)) for part in (q, k, v))  # (T, N, tokens, channels)
    return net.attention((q @ k.transpose(-1, -2) @ v * 0.5).flatten(-2))


def linear_attention(net: Joined, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (4, 2)) for part in (q, k, v))
    products = torch.einsum("tnlc,tnld->tncd", k, v)
    return net.attention((torch.einsum("tnlc,tncd->tnld", q, products) * 0.5).flatten(-2))


JOINS: dict[str, tuple[Callable[[Joined, Tensor, Tensor, Tensor], Tensor], set[str]]] = {
    "attention": (attention, {"attention"}),
    "linear attention": (linear_attention, {"attention"}),
    "and": (lambda net, q, k, v: q * k * v, {"lif_q", "lif_k", "lif_v"}),
    "iand": (lambda net, q, k, v: (1 - q) * k * v, {"lif_q", "lif_k", "lif_v"}),
    "or by max": (
        lambda net, q, k, v: torch.maximum(torch.max(q, k), v),
        {"lif_q", "lif_k", "lif_v"},
    ),
    "or by a sum": (lambda net, q, k, v: v + (k + q - q * k), {"lif_q", "lif_k", "lif_v"}),
    "add": (lambda net, q, k, v: q + k + v, {"lif_q", "lif_k", "lif_v"}),
    "add in place": (lambda net, q, k, v: q.clone().add_(k).add_(v), {"lif_q", "lif_k", "lif_v"}),
    "booleans": (
        lambda net, q, k, v: ((q.bool() & k.bool()) | v.bool()).float(),
        {"lif_q", "lif_k", "lif_v"},
    ),
    "where": (lambda net, q, k, v: torch.where(q > 0, k, v), {"lif_q", "lif_k", "lif_v"}),
    "masked_fill": (
        lambda net, q, k, v: k + v.masked_fill(q.bool(), 0.0),
        {"lif_q", "lif_k", "lif_v"},
    ),
    "token mask": (
        lambda net, q, k, v: v + k * net.attention(q.sum(-1, keepdim=True) * 0.3),
        {"attention", "lif_k", "lif_v"},
    ),
    "sums over tokens": (
        lambda net, q, k, v: q * net.attention((k * v).sum(-1, keepdim=True)),
        {"attention", "lif_q"},
    ),
}


@pytest.fixture(scope="module")
def bare() -> Facts:
    return facts(lively(lambda: Joined(JOINS["add"][0])))


@pytest.mark.many(2)
@pytest.mark.parametrize("way", [way for way in JOINS if way != "add"])
def test_neurons_whose_spikes_meet_are_whole(way: str, bare: Facts) -> None:
    join, enter = JOINS[way]
    found = facts(lively(lambda: Joined(join)))
    assert not found.gated
    assert found.sources("proj") == enter
    for name in "qkv":
        assert found.drives(name) == [f"lif_{name}"]
        # what comes before the meeting is what it is without it
        for key in (f"{name}.weight", f"lif_{name} membrane_var"):
            torch.testing.assert_close(found.statistics[key], bare.statistics[key])
    assert found.drives("proj") == ["lif_p"]
    assert found.calibration.time_steps == STEPS
    uses_attention = way in ("attention", "linear attention", "token mask", "sums over tokens")
    assert ("attention" in found.network.neurons) is uses_attention


def test_a_gate_that_is_computed_holds_back_the_neuron_before_it() -> None:
    def squeezed(net: Joined, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return k + v + q * torch.sigmoid(net.k(q).mean(-1, keepdim=True))

    found = facts(lively(lambda: Joined(squeezed)))
    assert found.gated == ["lif_q"]
    assert found.drives("v") == ["lif_v"]


class Line(nn.Module):
    """Two layers; the first neuron is a line of code, `fires(self, state, current)`."""

    def __init__(self, fires: Any) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(9, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.fires = fires

    def forward(self, x: Tensor) -> Any:
        zero = torch.zeros(len(x), 8)
        state, w, total = {"u": zero, "s": zero, "rest": zero}, zero, 0
        for t in range(x.shape[1]):
            q = self.fires(state, self.a(x[:, t]))
            w = DECAY * w + self.b(q)
            y = hard(w)
            w = w * (1 - y)
            total = total + self.out(y)
        return total


def own_spikes_before(state: Any, current: Tensor) -> Tensor:
    u = DECAY * state["u"] + current
    new = hard(u)
    q = new * (1 - state["s"])
    state["s"], state["u"] = new, u * (1 - new)
    return q


def own_spikes_again(state: Any, current: Tensor) -> Tensor:
    u = DECAY * state["u"] + current
    new = hard(u)
    q = new * state["s"]
    state["s"], state["u"] = new, u * (1 - new)
    return q


def refractory(state: Any, current: Tensor) -> Tensor:
    u = DECAY * state["u"] + current
    q = hard(u) * (state["rest"] <= 0)
    state["rest"] = torch.where(q > 0, torch.full_like(u, 2.0), state["rest"] - 1)
    state["u"] = u * (1 - q)
    return q


def refractory_counter(state: Any, current: Tensor) -> Tensor:
    u = DECAY * state["u"] + current
    q = ((u >= THRESHOLD) & (state["rest"] <= 0)).float()
    state["rest"] = torch.clamp(state["rest"] - 1, min=0) + 2 * q
    state["u"] = u * (1 - q)
    return q


@pytest.mark.parametrize(
    "fires", [own_spikes_before, own_spikes_again, refractory, refractory_counter]
)
def test_a_neuron_that_its_own_past_holds_back_is_left_out(fires: Any) -> None:
    found = facts(lively(lambda: Line(fires)))
    assert found.gated == ["spikes after a"]
    assert set(found.calibration.neurons) == {"spikes after b"}
    assert found.calibration.time_steps == STEPS


def in_a_loop(state: Any, current: Tensor) -> Tensor:
    u, q = DECAY * state["u"] + current, torch.zeros_like(current)
    for k in (1, 2, 3):
        q = q + (u >= k * THRESHOLD).float()
    state["u"] = u - THRESHOLD * q
    return q


def in_lines(state: Any, current: Tensor) -> Tensor:
    u = DECAY * state["u"] + current
    q = (u >= THRESHOLD).float() + (u >= 2 * THRESHOLD).float() + (u >= 3 * THRESHOLD).float()
    state["u"] = u - THRESHOLD * q
    return q


@pytest.mark.parametrize("fires", [in_a_loop, in_lines])
def test_levels_are_a_neuron_each_one_threshold_apart(fires: Any) -> None:
    found = facts(lively(lambda: Line(fires)))
    levels = found.drives("a")
    assert levels == ["spikes after a", "spikes after a (1)", "spikes after a (2)"]
    means = [found.calibration.neurons[name].membrane_mean for name in levels]
    for i in (1, 2):
        torch.testing.assert_close(means[0] - means[i], torch.full_like(means[0], i * THRESHOLD))
    betas = [found.network.neurons[name].constants.beta for name in levels]
    assert betas == [0.5, 0.5, 0.5]
    assert found.calibration.time_steps == STEPS


def test_signs_of_what_is_far_from_zero_are_no_neuron_at_every_step() -> None:
    def ternary(state: Any, current: Tensor) -> Tensor:
        u = DECAY * state["u"] + current
        q = torch.sign(u) * (u.abs() >= THRESHOLD).float()
        state["u"] = u - THRESHOLD * q
        return q

    found = facts(lively(lambda: Line(ternary)))
    assert len(found.drives("a")) == 2
    assert found.calibration.time_steps == STEPS


class Populations(nn.Module):
    """A slow and a fast neuron under one current."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.a, self.out, self.first = nn.Linear(9, 8), nn.Linear(16, 3), first

    def forward(self, x: Tensor) -> Any:
        slow: Any = torch.zeros(len(x), 8)
        fast, total = slow, 0
        for t in range(x.shape[1]):
            current = self.a(x[:, t])
            if t == 0 and self.first:
                slow = fast = current
            else:
                slow, fast = 0.9 * slow + current, 0.1 * fast + current
            s1 = hard(slow)
            s2 = hard(fast)
            slow, fast = slow * (1 - s1), fast * (1 - s2)
            total = total + self.out(torch.cat([s1, s2], 1))
        return total


def test_populations_stay_apart_where_they_begin_with_the_same_current() -> None:
    found = facts(lively(lambda: Populations(first=True)))
    other = facts(lively(lambda: Populations(first=False)))
    assert [n.constants.beta for n in found.network.neurons.values()] == [0.9, 0.1]
    same(found, other)


class Currents(nn.Module):
    """A residual path of currents, as in MS-ResNet; `over` is the neuron of all."""

    def __init__(self, over: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(9 if i == 0 else 8, 8) for i in range(3))
        self.out, self.over = nn.Linear(8, 3), over

    def forward(self, x: Tensor) -> Tensor:
        current = self.layers[0](x.transpose(0, 1))
        for layer in self.layers[1:]:
            current = current + layer(self.over(current))
        return self.out(self.over(current)).sum(0)


class CurrentsBySteps(Currents):
    """The same step by step; the first step has no state."""

    def forward(self, x: Tensor) -> Any:
        state: list[Any] = [None] * 3
        total: Any = 0
        for t in range(x.shape[1]):
            current = self.layers[0](x[:, t])
            for i in range(3):
                u = current if state[i] is None else DECAY * state[i] + current
                s = hard(u)
                state[i] = u * (1 - s)
                if i < 2:
                    current = current + self.layers[i + 1](s)
            total = total + self.out(s)
        return total


@pytest.mark.parametrize("network", [Currents, CurrentsBySteps])
def test_a_sum_of_currents_drives_every_neuron_behind_it(network: Any) -> None:
    found = facts(lively(lambda: network(plain)))
    names = [f"spikes after layers.{i}" for i in range(3)]
    assert [found.drives(f"layers.{i}") for i in range(3)] == [names[i:] for i in range(3)]
    assert [found.sources(f"layers.{i}") for i in (1, 2)] == [{names[0]}, {names[1]}]
    assert [n.constants.beta for n in found.network.neurons.values()] == [0.5] * 3
    assert found.calibration.time_steps == STEPS


class Recurrent(nn.Module):
    """Spikes come back within a layer and from the layer after it."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.forth, self.next, self.out = nn.Linear(9, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.own, self.back = (nn.Linear(8, 8, bias=False) for _ in range(2))
        self.apart = apart

    def step(self, u: Any, current: Tensor) -> tuple[Tensor, Tensor]:
        u = DECAY * u + current
        s = hard(u)
        return u * (1 - s), s

    def forward(self, x: Tensor) -> Any:
        u: Any = torch.zeros(len(x), 8)
        v, s, z, total = u, u, u, 0
        for t in range(x.shape[1]):
            current = self.forth(x[:, t])
            if t == 0 and self.apart:
                s = functional.relu((current >= THRESHOLD).float())
                u = current * (1 - s)
                v = self.next(s)
                z = (v >= THRESHOLD).float()
                v = v * (1 - z)
            else:
                u, s = self.step(u, self.back(z) + self.own(s) + current)
                v, z = self.step(v, self.next(s))
            total = total + self.out(z)
        return total


def test_a_first_step_before_anything_comes_back_is_one_of_the_same_neuron() -> None:
    found = facts(lively(lambda: Recurrent(apart=True)))
    other = facts(lively(lambda: Recurrent(apart=False)))
    assert other.drives("own") == other.drives("back") == other.drives("forth")
    assert found.drives("own") == found.drives("back") == found.drives("forth")
    assert found.neurons.keys() == other.neurons.keys()
    assert found.calibration.time_steps == STEPS
    for name, neuron in other.network.neurons.items():
        constants = found.network.neurons[name].constants
        assert constants.beta == 0.5
        assert set(found.network.neurons[name].feeders) == set(neuron.feeders)
    assert found.statistics.keys() == other.statistics.keys()
    for key, value in other.statistics.items():
        torch.testing.assert_close(found.statistics[key], value, rtol=1e-5, atol=1e-5)
