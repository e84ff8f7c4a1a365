"""Chains: constants of neurons found from membranes, BatchNorm folded, and what is no chain."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.export.c import _Header, run_header
from snnprune.export.chain import ChainError, ExtractedChain
from snnprune.export.chain_extraction import extract_chain
from snnprune.export.exporters import record_first_calls
from snnprune.graph.trace import trace
from snnprune.models.lif import LIF, Dynamics


def extracted(net: nn.Module, x: Tensor) -> ExtractedChain:
    return extract_chain(record_first_calls(trace(net.eval(), x), x))


def layered(dynamics: Dynamics, *between: nn.Module) -> nn.Sequential:
    """Vectors (T, N, 20)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), *between, LIF(dynamics), nn.Linear(30, 8), LIF(dynamics))
    for layer in (net[0], net[-2]):
        layer.get_parameter("weight").data *= 4
    return net


def vectors() -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(7, 5, 20, generator=drawn)


NEURONS: dict[str, tuple[dict[str, Any], tuple[float, float, float, str, float]]] = {
    "hard": ({"beta": 0.75}, (0.75, 1, 1, "to", 0)),
    "soft": ({"beta": 0.75, "threshold": 2.0, "reset": "soft"}, (0.75, 1, 2, "by", 1.5)),
    "scaled": ({"beta": 0.75, "decay_input": True}, (0.75, 0.25, 1, "to", 0)),
    "no leak": ({"beta": 1.0}, (1, 1, 1, "to", 0)),
    "rest": ({"beta": 0.5, "v_rest": 0.25, "v_reset": -0.5}, (0.5, 1, 0.75, "to", -0.75)),
    "soft rest": ({"beta": 0.5, "v_rest": 0.25, "reset": "soft"}, (0.5, 1, 0.75, "by", 0.5)),
}
"""Dynamics, and beta, gain, threshold, reset and amount when potentials are counted from rest."""


@pytest.mark.parametrize("name", NEURONS)
def test_the_constants_of_neurons_follow_from_their_membranes(name: str) -> None:
    given, wanted = NEURONS[name]
    net, x = layered(Dynamics(**given)), vectors()
    found = extracted(net, x)
    for one in found.chain.neurons:
        assert one.reset == wanted[3]
        constants = (one.beta, one.gain, one.threshold, one.amount)
        assert constants == pytest.approx((*wanted[:3], wanted[4]), rel=1e-5, abs=1e-6)
    with torch.no_grad():
        assert torch.equal(found.chain.run(x)[3], net(x))
    assert found.check.spikes > 0


class Own(nn.Module):
    """A neuron in somebody's code, with what it does wrong to be a chain's."""

    def __init__(self, threshold: Tensor, grows: float = 0.0, refractory: bool = False) -> None:
        super().__init__()
        self.threshold, self.grows, self.refractory = threshold, grows, refractory

    def forward(self, x: Tensor) -> Tensor:
        u, level, steps = torch.zeros_like(x[0]), self.threshold, list[Tensor]()
        for now in x:
            held = steps[-1] if self.refractory and steps else torch.zeros_like(now)
            u = 0.8 * u + now * (1 - held)
            steps.append((u > level).float())
            u = u * (1 - steps[-1])
            level = level + self.grows * steps[-1]
        return torch.stack(steps)


def own(neuron: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), neuron, nn.Linear(30, 8))
    net[0].get_parameter("weight").data *= 4
    return net


def test_neurons_of_one_s_own_are_known_by_what_they_do() -> None:
    found = extracted(own(Own(torch.tensor(1.5))), vectors())
    (one,) = found.chain.neurons
    assert (one.beta, one.threshold) == pytest.approx((0.8, 1.5), rel=1e-5)
    assert (one.reset, one.inclusive) == ("to", False)


@pytest.mark.parametrize(
    "neuron",
    [Own(torch.linspace(1, 2, 30)), Own(torch.tensor(1.5), grows=0.2)],
    ids=["threshold of each", "threshold that grows"],
)
def test_other_neurons_are_refused(neuron: nn.Module) -> None:
    with pytest.raises(ChainError, match="is off by"):
        extracted(own(neuron), vectors())


def test_neurons_that_miss_what_enters_after_a_spike_are_run_so_in_c_too() -> None:
    found = extracted(own(Own(torch.tensor(1.5), refractory=True)), vectors())
    assert found.chain.neurons[0].reset == "skip"
    assert found.check.other_spikes == 0
    made = run_header(_Header(found.chain, {}).text(), found.inputs, 8)
    torch.testing.assert_close(made, found.chain.run(found.inputs)[2])


def test_neurons_that_never_fire_are_refused() -> None:
    with pytest.raises(ChainError, match="never fires"):
        extracted(own(Own(torch.tensor(1e6))), vectors())


class Folded(nn.Module):
    """(T, N, C, ...) by a module for (N, C, ...)."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.parts(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return made


def restless(norm: Any) -> Any:
    for tensor in (norm.running_mean, norm.bias.data):
        tensor.normal_()
    norm.running_var.uniform_(0.3, 2)
    norm.weight.data.uniform_(0.5, 2)
    return norm


def test_a_batchnorm_is_a_factor_and_a_shift_of_its_rows() -> None:
    torch.manual_seed(1)
    norm = restless(nn.BatchNorm1d(30))
    net = layered(Dynamics(), Folded(norm))
    first: Any = net[0]
    first.weight.data[:, ::2] = 0
    found = extracted(net, vectors())
    layer = found.chain.layers[0]
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = first.weight * factor[:, None]
    torch.testing.assert_close(layer.weight, weight.detach())
    bias = (first.bias - norm.running_mean) * factor + norm.bias
    torch.testing.assert_close(layer.bias, bias.detach())
    assert torch.equal(layer.weight == 0, first.weight == 0)
    assert found.check.folded == 1


def test_a_batchnorm_before_a_layer_is_refused() -> None:
    net = nn.Sequential(
        nn.Linear(20, 30), LIF(Dynamics()), Folded(restless(nn.BatchNorm1d(30))), nn.Linear(30, 8)
    )
    with pytest.raises(InputError, match="comes before a layer"):
        extracted(net, 3 * vectors())


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_a_largest_value_changes_places_with_a_factor_above_0_alone(factor: float) -> None:
    torch.manual_seed(0)
    norm = restless(nn.BatchNorm2d(4))
    norm.weight.data[1] *= factor
    conv = nn.Conv2d(1, 4, 3, padding=1)
    conv.weight.data *= 4
    net = nn.Sequential(
        Folded(conv, nn.MaxPool2d(2), norm), LIF(Dynamics()), nn.Flatten(2), nn.Linear(64, 3)
    )
    x = torch.rand(4, 3, 1, 8, 8)
    if factor > 0:
        assert extracted(net, x).check.folded == 1
        return
    with pytest.raises(ChainError, match="does not let it be folded"):
        extracted(net, x)


def test_a_layer_that_is_pruned_away_is_a_header_too() -> None:
    net = layered(Dynamics())
    net[2].get_parameter("weight").data.zero_()
    net[2].get_parameter("bias").data.fill_(0.6)
    found = extracted(net, vectors())
    made = run_header(_Header(found.chain, {}).text(), found.inputs, 8)
    assert torch.equal(made, found.chain.run(found.inputs)[3])
    assert made.any()
