"""Spikes are spikes whatever is done to make them of a comparison."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from idioms import (
    THRESHOLD,
    Facts,
    Neuron,
    Residual,
    Spike,
    agrees,
    facts,
    hard,
    leaky,
    lively,
    plain,
    residual,
    same,
    spiking,
)
from torch import Tensor, nn


class Saved(torch.autograd.Function):
    """With what the gradient needs, and a width that somebody gives."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.alpha = alpha
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (u,) = ctx.saved_tensors
        return gradient * (u.abs() < ctx.alpha), None


class Several(torch.autograd.Function):
    """Gives spikes and the distance to the threshold."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        return u.ge(threshold).float(), u - threshold

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, other: Tensor) -> Any:
        return gradient + other, None


class Written(torch.autograd.Function):
    """Writes ones into zeros."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        out = torch.zeros_like(u)
        out[u >= THRESHOLD] = 1.0
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient


class Apart(torch.autograd.Function):
    """Sets up its context apart."""

    @staticmethod
    def forward(u: Tensor) -> Tensor:
        return (u >= THRESHOLD).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient


def scripted_where(d: Tensor) -> Tensor:
    return torch.where(d >= 0, torch.ones_like(d), torch.zeros_like(d))


def scripted_index(u: Tensor) -> Tensor:
    out = torch.zeros_like(u)
    out[u >= 0.5] = 1.0
    return out


class ScriptedNeuron(nn.Module):
    """Compiled as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        u = torch.zeros_like(x[0])
        out: list[Tensor] = []
        for i in range(x.shape[0]):
            u = 0.5 * u + x[i]
            s = (u >= 0.5).float()
            u = u * (1 - s)
            out.append(s)
        return torch.stack(out)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated, and still in people's code
    in_script = torch.jit.script(scripted_where)
    indexed_in_script = torch.jit.script(scripted_index)


def indexed(u: Tensor) -> Tensor:
    out = torch.zeros(u.shape)
    out[u >= THRESHOLD] = 1.0
    return out


def written_over(u: Tensor) -> Tensor:
    out = u.clone()
    out[u >= THRESHOLD] = 1.0
    out[u < THRESHOLD] = 0.0
    return out


def sigmoid(u: Tensor) -> Tensor:
    return torch.sigmoid(4 * (u - THRESHOLD))


def arctan(u: Tensor) -> Tensor:
    return torch.atan(math.pi * (u - THRESHOLD)) / math.pi + 0.5


def triangle(u: Tensor) -> Tensor:
    return torch.relu(1 - (u - THRESHOLD).abs())


def piecewise(u: Tensor) -> Tensor:
    return torch.where((u - THRESHOLD).abs() < 0.3, u - THRESHOLD + 0.5, 0.1 * u)


WAYS: dict[str, Spike] = {
    "to a tensor": lambda u: (u >= THRESHOLD).to(u),
    "to a dtype": lambda u: (u >= THRESHOLD).to(u.dtype),
    "type_as": lambda u: (u >= THRESHOLD).type_as(u),
    "view_as": lambda u: (u >= THRESHOLD).float().flatten().view_as(u),
    "reshape_as": lambda u: (u >= THRESHOLD).float().reshape_as(u),
    "expand_as": lambda u: (u >= THRESHOLD).float().expand_as(u),
    "through integers": lambda u: (u >= THRESHOLD).int().float(),
    "where of numbers": lambda u: torch.where(u >= THRESHOLD, 1.0, 0.0),
    "where of tensors": lambda u: torch.where(u >= THRESHOLD, torch.ones(()), torch.zeros(())),
    "where of likes": lambda u: torch.where(
        u >= THRESHOLD, torch.ones_like(u), torch.zeros_like(u)
    ),
    "where below": lambda u: torch.where(u < THRESHOLD, torch.zeros_like(u), torch.ones_like(u)),
    "heaviside": lambda u: torch.heaviside(u - THRESHOLD, torch.ones(())),
    "mask times one": lambda u: (u >= THRESHOLD) * 1.0,
    "mask times ones": lambda u: (u >= THRESHOLD) * torch.ones_like(u),
    "mask times a constant": lambda u: (u >= THRESHOLD).float() * THRESHOLD / THRESHOLD,
    "not below": lambda u: (~(u < THRESHOLD)).float(),
    "one minus below": lambda u: 1 - (u < THRESHOLD).float(),
    "threshold first": lambda u: (torch.tensor(THRESHOLD) <= u).float(),
    "threshold minus membrane": lambda u: ((THRESHOLD - u) <= 0).float(),
    "a quotient": lambda u: (u / THRESHOLD - 1 >= 0).float(),
    "alpha": lambda u: (torch.sub(u, torch.ones_like(u), alpha=THRESHOLD) >= 0).float(),
    "in place": lambda u: u.clone().ge_(THRESHOLD),
    "index": indexed,
    "index over a copy": written_over,
    "masked_fill": lambda u: torch.zeros_like(u).masked_fill(u >= THRESHOLD, 1.0),
    "masked_fill in place": lambda u: torch.zeros_like(u).masked_fill_(u >= THRESHOLD, 1.0),
    "function": lambda u: Saved.apply(u - THRESHOLD, 2.0),
    "function of several": lambda u: Several.apply(u, THRESHOLD)[0],
    "function that writes": Written.apply,
    "function with a context": Apart.apply,
    "script": lambda u: in_script(u - THRESHOLD),
    "script that writes": indexed_in_script,
}
THROUGH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference first": lambda h, soft: (h - soft).detach() + soft,
    "difference last": lambda h, soft: soft + (h - soft).detach(),
    "taken off": lambda h, soft: h.detach() + soft - soft.detach(),
    "taken off twice": lambda h, soft: soft - (soft - h).detach(),
    "by data": lambda h, soft: (h - soft).data + soft,
}
SOFT = {"sigmoid": sigmoid, "arctan": arctan, "triangle": triangle, "itself": lambda u: 1.0 * u}


@pytest.fixture(scope="module")
def expected() -> Facts:
    return facts(residual(plain))


def test_the_plain_network_is_as_a_simulation_says(expected: Facts) -> None:
    agrees(expected, residual(plain), leaky)
    neurons = expected.network.neurons
    assert expected.drives("first") == ["lif1"]
    assert expected.drives("second") == ["lif2"]
    assert neurons["lif2"].identities == ("lif1",)
    for neuron in neurons.values():
        constants = neuron.constants
        assert (constants.beta, constants.decay_input) == (0.5, False)
        assert constants.fires_at_threshold


@pytest.mark.many(2)
@pytest.mark.parametrize("way", WAYS)
def test_spikes_are_known_however_they_are_made_of_a_comparison(way: str, expected: Facts) -> None:
    same(facts(residual(spiking(WAYS[way]))), expected)


CASES = [
    *((order, "sigmoid", False) for order in THROUGH),
    *((order, "sigmoid", True) for order in ("difference first", "taken off twice")),
    *(("difference last", soft, False) for soft in SOFT if soft != "sigmoid"),
]


@pytest.mark.many(5)
@pytest.mark.parametrize(("order", "soft", "hard_first"), CASES)
def test_straight_through_sums_are_spikes_in_any_order(
    order: str, soft: str, hard_first: bool, expected: Facts
) -> None:
    def spike(u: Tensor) -> Tensor:
        if hard_first:
            h = hard(u)
            return THROUGH[order](h, SOFT[soft](u))
        surrogate = SOFT[soft](u)
        return THROUGH[order](hard(u), surrogate)

    same(facts(residual(spiking(spike))), expected)


def test_a_surrogate_with_comparisons_of_its_own_adds_no_neuron(expected: Facts) -> None:
    same(
        facts(residual(spiking(lambda u: (hard(u) - piecewise(u)).detach() + piecewise(u)))),
        expected,
    )


SIGNS: dict[str, Spike] = {
    "a half of it plus one": lambda u: (torch.sign(u - THRESHOLD) + 1) / 2,
    "rectified": lambda u: torch.relu(torch.sign(u - THRESHOLD)),
    "clamped": lambda u: torch.sgn(u - THRESHOLD).clamp(min=0),
}


def test_signs_are_spikes_above_the_threshold() -> None:
    above = facts(residual(spiking(lambda u: (u > THRESHOLD).float())))
    assert not above.network.neurons["lif1"].constants.fires_at_threshold
    for spike in SIGNS.values():
        same(facts(residual(spiking(spike))), above)


class Shared(nn.Module):
    """A surrogate that is a module."""

    def forward(self, distance: Tensor) -> Tensor:
        return Saved.apply(distance, 1.0)


class WithSurrogate(Neuron):
    """A neuron that has one as a child."""

    def __init__(self, surrogate: nn.Module) -> None:
        super().__init__(spiking(lambda u: self.surrogate(u - THRESHOLD)))
        self.surrogate = surrogate


@pytest.mark.parametrize("own", [True, False])
def test_a_surrogate_module_counts_for_nothing_shared_or_not(own: bool, expected: Facts) -> None:
    one = Shared()
    module = lively(lambda: Residual(lambda: WithSurrogate(Shared() if own else one)))
    same(facts(module), expected)


def test_a_neuron_that_is_compiled_as_a_whole_keeps_its_name(expected: Facts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = lively(lambda: Residual(lambda: torch.jit.script(ScriptedNeuron())))
    same(facts(module), expected)
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_one_instance_at_two_places_is_two_neurons() -> None:
    one = Neuron(plain)
    found, apart = facts(lively(lambda: Residual(lambda: one))), facts(residual(plain))
    (first,), (second,) = found.drives("first"), found.drives("second")
    for name, other in ((first, "lif1"), (second, "lif2")):
        for field in ("membrane_mean", "membrane_var", "firing_rate"):
            of_one, of_other = (f"{name} {field}", f"{other} {field}")
            torch.testing.assert_close(found.statistics[of_one], apart.statistics[of_other])
    torch.testing.assert_close(found.statistics["second.weight"], apart.statistics["second.weight"])


def test_spikes_of_other_networks_would_be_told_apart(expected: Facts) -> None:
    other = facts(residual(spiking(lambda u: (u >= 0.6).float())))
    with pytest.raises(AssertionError):
        same(other, expected)
    assert other.links == expected.links
