"""One neuron is one neuron over all of time, wherever its state is and however steps are made."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from idioms import (
    DECAY,
    STEPS,
    THRESHOLD,
    Facts,
    Neuron,
    Over,
    Residual,
    facts,
    frames,
    hard,
    lively,
    plain,
    residual,
    same,
)
from torch import Tensor, nn


def first_is_input(x: Tensor) -> Tensor:
    u, out = x[0], []
    for i, current in enumerate(x):
        u = current if i == 0 else DECAY * u + current
        s = hard(u)
        u = u * (1 - s)
        out.append(s)
    return torch.stack(out)


def first_is_copied(x: Tensor) -> Tensor:
    u, out = x[0].clone(), []
    for i in range(len(x)):
        if i:
            u.mul_(DECAY).add_(x[i])
        s = hard(u)
        u.masked_fill_(s.bool(), 0.0)
        out.append(s)
    return torch.stack(out)


def samples_first(x: Tensor) -> Tensor:
    y = x.transpose(0, 1)
    u = y[:, 0]
    out: list[Tensor] = []
    for t in range(y.shape[1]):
        if t:
            u = DECAY * u * (1 - out[-1]) + y[:, t]
        out.append(hard(u))
    return torch.stack(out, 1).transpose(0, 1)


def starting_with(state: Any) -> Over:
    def over(x: Tensor) -> Tensor:
        u, out = state, []
        for current in x:
            u = DECAY * u + current
            s = hard(u)
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)

    return over


def first_apart(x: Tensor) -> Tensor:
    u = x[0]
    s = (u >= THRESHOLD).float()
    out = [s]
    for current in x[1:]:
        u = DECAY * u * (1 - s) + current
        s = (u >= THRESHOLD).float()
        out.append(s)
    return torch.stack(out)


def unrolled(x: Tensor) -> Tensor:
    u0 = x[0]
    s0 = hard(u0)
    u1 = DECAY * u0 * (1 - s0) + x[1]
    s1 = hard(u1)
    u2 = DECAY * u1 * (1 - s1) + x[2]
    s2 = hard(u2)
    u3 = DECAY * u2 * (1 - s2) + x[3]
    s3 = hard(u3)
    return torch.stack([s0, s1, s2, s3])


def lists(x: Tensor) -> Tensor:
    us, spikes = [torch.zeros_like(x[0])], [torch.zeros_like(x[0])]
    for current in x:
        us.append(DECAY * us[-1] * (1 - spikes[-1]) + current)
        spikes.append(hard(us[-1]))
    return torch.stack(spikes[1:])


def dictionary(x: Tensor) -> Tensor:
    state = {"u": torch.zeros_like(x[0]), "s": torch.zeros_like(x[0])}
    out = torch.zeros_like(x)
    for i in range(len(x)):
        state["u"] = DECAY * state["u"] * (1 - state["s"]) + x[i]
        state["s"] = out[i, ...] = hard(state["u"])
    return out


def tensors_over_time(x: Tensor) -> Tensor:
    u = torch.zeros(len(x) + 1, *x.shape[1:])
    s = torch.zeros(len(x) + 1, *x.shape[1:])
    for i in range(len(x)):
        u[i + 1] = DECAY * u[i] * (1 - s[i]) + x[i]
        s[i + 1] = hard(u[i + 1])
    return s[1:]


def joined(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), x[:0]
    for current in x.unbind(0):
        u = DECAY * u + current
        s = hard(u)
        u = u - u * s
        out = torch.cat([out, s[None]])
    return out


def in_place(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), torch.empty_like(x)
    for i in range(len(x)):
        u *= DECAY
        u += x[i]
        s = hard(u)
        out[i].copy_(s)
        u *= 1 - s
    return out


def copied(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), []
    for current in x:
        u.copy_(DECAY * u + current)
        s = hard(u)
        out.append(s)
        u.copy_(u * (1 - s))
    return torch.stack(out)


def detached(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), []
    for current in x:
        u = DECAY * u.detach_() + current
        s = hard(u)
        u = u * (1 - s.data)
        out.append(s)
    return torch.stack(out)


def gathered(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), []
    for i in range(len(x)):
        u = torch.add(x.index_select(0, torch.tensor([i]))[0], u, alpha=DECAY)
        s = hard(u)
        u = u * (1 - s)
        out.append(s)
    return torch.stack(out)


def folded(x: Tensor) -> Tensor:
    flat = x.flatten(0, 1)
    return plain(flat.view(x.shape)).flatten(0, 1).view_as(x)


def step_function(x: Tensor) -> Tensor:
    def step(u: Any, s: Any, current: Tensor) -> tuple[Tensor, Tensor]:
        u = current if u is None else DECAY * u * (1 - s) + current
        return u, hard(u)

    u, s, out = None, None, []
    for current in x:
        u, s = step(u, s, current)
        out.append(s)
    return torch.stack(out)


def resetting(reset: Callable[[Tensor, Tensor], Tensor]) -> Over:
    def over(x: Tensor) -> Tensor:
        u, out = torch.zeros_like(x[0]), []
        for current in x:
            u = DECAY * u + current
            s = hard(u)
            u = reset(u, s)
            out.append(s)
        return torch.stack(out)

    return over


def by_index(u: Tensor, s: Tensor) -> Tensor:
    u[s.bool()] = 0.0
    return u


def one_step_late(x: Tensor) -> Tensor:
    u, out = torch.zeros_like(x[0]), []
    for current in x:
        u = DECAY * u * (u < THRESHOLD) + current
        out.append(hard(u))
    return torch.stack(out)


OVER: dict[str, Over] = {
    "the first input": first_is_input,
    "a copy of the first input": first_is_copied,
    "samples first": samples_first,
    "a zero": starting_with(0),
    "a tensor of one zero": starting_with(torch.zeros(1)),
    "the first step apart": first_apart,
    "every step apart": unrolled,
    "lists": lists,
    "a dictionary": dictionary,
    "tensors over time": tensors_over_time,
    "spikes joined": joined,
    "in place": in_place,
    "copied into": copied,
    "detached in place": detached,
    "gathered": gathered,
    "folded into the batch": folded,
    "a step function": step_function,
    "where": resetting(lambda u, s: torch.where(s > 0, torch.zeros_like(u), u)),
    "masked_fill": resetting(lambda u, s: u.masked_fill(s.bool(), 0.0)),
    "an index": resetting(by_index),
    "compared again": resetting(lambda u, s: u * (u < THRESHOLD)),
    "where compared again": resetting(
        lambda u, s: torch.where(u >= THRESHOLD, torch.zeros_like(u), u)
    ),
    "compared a step later": one_step_late,
}


class Attribute(nn.Module):
    """Its state is made at first use."""

    def __init__(self) -> None:
        super().__init__()
        self.u: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for current in x:
            if self.u is None:
                self.u = torch.zeros_like(current)
            self.u = DECAY * self.u + current
            out.append(hard(self.u))
            self.u = self.u * (1 - out[-1])
        self.u = None
        return torch.stack(out)


class InPlaceAttribute(nn.Module):
    """Its state is an attribute that stays, and is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.u = torch.zeros(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.u.shape != x[0].shape:
            self.u = torch.zeros_like(x[0])
        self.u.zero_()
        out = []
        for current in x:
            self.u.mul_(DECAY).add_(current)
            out.append(hard(self.u))
            self.u.mul_(1 - out[-1])
        return torch.stack(out)


class Buffer(nn.Module):
    """Its state is a buffer; `shape` is that of the batch, so that the buffer itself stays."""

    u: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("u", torch.zeros(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.u.shape != x[0].shape:
            self.u = torch.zeros_like(x[0])
        self.u.fill_(0.0)
        out = []
        for current in x:
            self.u *= DECAY
            self.u += current
            out.append(hard(self.u))
            self.u[out[-1] > 0] = 0.0
        return torch.stack(out)


class Data(nn.Module):
    """Replaces what is in its buffer."""

    u: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("u", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.u, out = torch.zeros_like(x[0]), []
        for current in x:
            self.u.data = DECAY * self.u + current
            out.append(hard(self.u))
            self.u.data = self.u.data * (1 - out[-1])
        return torch.stack(out)


class Cell(nn.Module):
    """One step."""

    def forward(self, current: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        u = current if state is None else DECAY * state[0] * (1 - state[1]) + current
        s = hard(u)
        return s, (u, s)


class Cells(nn.Module):
    """A cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for current in x:
            s, state = self.cell(current, state)
            out.append(s)
        return torch.stack(out)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "an attribute": Attribute,
    "an attribute in place": InPlaceAttribute,
    "a buffer": lambda: Buffer(1),
    "a buffer that stays": lambda: Buffer(6, 7),
    "data of a buffer": Data,
    "a cell": Cells,
}


@pytest.fixture(scope="module")
def expected() -> Facts:
    return facts(residual(plain))


@pytest.mark.many(2)
@pytest.mark.parametrize("way", OVER)
def test_a_state_is_one_neuron_over_all_steps(way: str, expected: Facts) -> None:
    same(facts(residual(OVER[way])), expected)


@pytest.mark.many(3)
@pytest.mark.parametrize("way", MODULES)
def test_a_state_in_a_module_is_one_neuron_over_all_steps(way: str, expected: Facts) -> None:
    same(facts(lively(lambda: Residual(MODULES[way]))), expected)


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_are_few_steps(steps: int) -> None:
    x = frames(6, steps)
    found, apart, other = (
        facts(residual(over), x) for over in (first_is_input, first_apart, plain)
    )
    assert other.calibration.time_steps == steps
    for one in (found, apart):
        assert one.calibration.time_steps == steps
        assert one.links == other.links
        for key, value in other.statistics.items():
            torch.testing.assert_close(one.statistics[key], value, rtol=1e-5, atol=1e-5)


def test_one_sample_is_enough() -> None:
    found, other = (facts(residual(over), frames(1)) for over in (first_is_input, plain))
    same(found, other)


def test_steps_of_silence_count() -> None:
    x = frames()
    x[:, :2] = 0.0
    same(facts(residual(first_is_input), x), facts(residual(plain), x))


class Stack(nn.Module):
    """Three layers and neurons that are lines of code; subclasses go through time their own way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(nn.Linear(9 if i == 0 else 8, 8) for i in range(3))
        self.out = nn.Linear(8, 3)
        self.u: list[Any] = [None] * 3

    def step(self, u: Any, current: Tensor) -> tuple[Tensor, Tensor]:
        u = DECAY * u + current
        s = hard(u)
        return u * (1 - s), s


class ByName(Stack):
    """Every layer has its own line."""

    def forward(self, x: Tensor) -> Any:
        u1 = u2 = u3 = torch.zeros(len(x), 8)
        total: Any = 0
        for t in range(x.shape[1]):
            u1, s = self.step(u1, self.layers[0](x[:, t]))
            u2, s = self.step(u2, self.layers[1](s))
            u3, s = self.step(u3, self.layers[2](s))
            total = total + self.out(s)
        return total


class Inner(Stack):
    """A step function for all layers in a loop inside that over time."""

    def forward(self, x: Tensor) -> Any:
        u, total = [torch.zeros(len(x), 8) for _ in self.layers], 0
        for t in range(x.shape[1]):
            s = x[:, t]
            for i, layer in enumerate(self.layers):
                u[i], s = self.step(u[i], layer(s))
            total = total + self.out(s)
        return total


class Inline(Stack):
    """The same without the function; the state starts as a number."""

    def forward(self, x: Tensor) -> Any:
        u: list[Any] = [0.0] * 3
        total = 0
        for t in range(x.shape[1]):
            s = x[:, t]
            for i, layer in enumerate(self.layers):
                u[i] = DECAY * u[i] + layer(s)
                s = (u[i] >= THRESHOLD).float()
                u[i] = u[i] * (1 - s)
            total = total + self.out(s)
        return total


class LayerByLayer(Stack):
    """Every layer over all of time, step by step, before the next."""

    def forward(self, x: Tensor) -> Any:
        steps = list(x.unbind(1))
        for layer in self.layers:
            u, spikes = torch.zeros(len(x), 8), []
            for s in steps:
                u, s = self.step(u, layer(s))
                spikes.append(s)
            steps = spikes
        return sum(self.out(s) for s in steps)


class AtOnce(Stack):
    """Every layer is called once for all steps, that are the batch."""

    def forward(self, x: Tensor) -> Any:
        y = x.transpose(0, 1)
        for layer in self.layers:
            y = plain(layer(y.reshape(-1, y.shape[-1])).view(*y.shape[:2], 8))
        return self.out(y).sum(0)


class SamplesFirst(Stack):
    """The same with (N, T, C)."""

    def forward(self, x: Tensor) -> Any:
        for layer in self.layers:
            y, u, spikes = layer(x), torch.zeros(len(x), 8), []
            for t in range(y.shape[1]):
                u, s = self.step(u, y[:, t])
                spikes.append(s)
            x = torch.stack(spikes, 1)
        return self.out(x).sum(1)


class OneStep(Stack):
    """State in attributes; whoever calls it goes through time."""

    def forward(self, s: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            if self.u[i] is None:
                self.u[i] = torch.zeros(len(s), 8)
            self.u[i], s = self.step(self.u[i], layer(s))
        return self.out(s)


def looped(module: Any, x: Tensor) -> Tensor:
    """Somebody's own loop over time."""
    module.u = [None] * 3
    return torch.stack([module(x[:, t]) for t in range(x.shape[1])])


@pytest.fixture(scope="module")
def by_name() -> Facts:
    return facts(lively(ByName))


@pytest.mark.parametrize("network", [Inner, Inline, LayerByLayer, AtOnce, SamplesFirst])
def test_ways_through_layers_and_time_are_alike(network: Any, by_name: Facts) -> None:
    assert list(by_name.network.neurons) == [f"spikes after layers.{i}" for i in range(3)]
    assert by_name.calibration.time_steps == STEPS
    same(facts(lively(network)), by_name)


def test_a_network_that_is_called_for_every_step_is_the_same(by_name: Facts) -> None:
    same(facts(lively(OneStep), run=looped), by_name)


class Chain(OneStep):
    """Neurons in `nn.Sequential`."""

    def __init__(self) -> None:
        super().__init__()
        parts = [part for layer in self.layers for part in (layer, Keeping())]
        self.layers = nn.Sequential(*parts)

    def forward(self, s: Tensor) -> Tensor:
        return self.out(self.layers(s))


class Keeping(nn.Module):
    """Keeps its state between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.u: Any = None

    def forward(self, current: Tensor) -> Tensor:
        self.u = (0.0 if self.u is None else DECAY * self.u) + current
        s = hard(self.u)
        self.u = self.u * (1 - s)
        return s


def test_neurons_in_a_sequence_have_their_names_there(by_name: Facts) -> None:
    def run(module: Any, x: Tensor) -> Tensor:
        for part in module.layers[1::2]:
            part.u = None
        return looped(module, x)

    found = facts(lively(Chain), run=run)
    assert list(found.network.neurons) == ["layers.1", "layers.3", "layers.5"]
    for i, name in enumerate(found.network.neurons):
        mean = by_name.statistics[f"spikes after layers.{i} membrane_mean"]
        torch.testing.assert_close(found.statistics[f"{name} membrane_mean"], mean)


@pytest.mark.parametrize("drawn", [torch.bernoulli, lambda x: (torch.rand_like(x) < x).float()])
def test_inputs_that_are_drawn_are_no_neurons(drawn: Over) -> None:
    class Poisson(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(drawn(x))

    found = facts(lively(lambda: Poisson(lambda: Neuron(plain))))
    assert list(found.network.neurons) == ["lif1", "lif2"]
    assert found.network.layers["first.weight"].encoding
    assert found.calibration.time_steps == STEPS
