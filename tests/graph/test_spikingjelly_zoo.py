"""SpikingJelly's own networks as a whole: every link, every membrane, every score."""

from typing import Any

import pytest
import torch
from behaviour import Behaviour, Case, cases_of, made_of
from spikingjelly.activation_based import neuron
from spikingjelly_networks import ZOO, ZOO_LINKS
from torch import Tensor, nn
from torch.distributions import Normal
from zoo import output, seen

from snnprune.graph.network import Network
from snnprune.graph.trace import trace

case = cases_of(ZOO, ZOO_LINKS)


class TestBehaviour(Behaviour):
    pass


def inputs_of(network: Network, x: Tensor, kind: Any) -> dict[str, Tensor]:
    """What enters every module of a kind, kept by plain hooks of this test."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda _, args, __, name=name: kept.__setitem__(name, args[0].detach().clone())
        )
        for name, module in network.module.named_modules()
        if isinstance(module, kind)
    ]
    output(network, x)
    for handle in handles:
        handle.remove()
    return kept


def test_the_neuron_after_an_addition_is_fed_by_both_branches() -> None:
    neurons = trace(*made_of(ZOO, "spiking_resnet18")).neurons
    both = {"layer2.0.conv2.weight", "layer2.0.downsample.0.weight"}
    assert set(neurons["layer2.0.sn2"].feeders) == both
    assert neurons["layer1.0.sn2"].identities == ("sn1",)


def decay(node: Any) -> Tensor:
    """1 / tau, for a neuron that decays its input too; 0 for one that integrates."""
    if isinstance(node, neuron.ParametricLIFNode):
        return node.w.detach().double().sigmoid()
    return torch.tensor(0.0 if isinstance(node, neuron.IFNode) else 1 / node.tau)


def simulated(node: Any, current: Tensor, spikes: Tensor) -> Tensor:
    """u - 1 of a neuron with hard reset to 0, (T, N, ...), in float64.

    It is reset where the network's own neuron fired: a membrane at the threshold to the last bit
    may fall on either side of it.
    """
    rate, v, distances = decay(node), torch.zeros_like(current[0], dtype=torch.float64), []
    for x, fired in zip(current.double(), spikes, strict=True):
        u = v + x if isinstance(node, neuron.IFNode) else v + rate * (x - v)
        v = u * (fired == 0)
        distances.append(u - 1)
    return torch.stack(distances)


def test_every_membrane_and_spike_equals_an_independent_simulation(case: Case) -> None:
    network, x = case.network, case.x
    membranes, spikes = seen(network, x)
    currents = inputs_of(network, x, tuple({type(n.module) for n in network.neurons.values()}))
    assert set(membranes) == set(spikes) == set(currents) == set(network.neurons)
    for name, one in network.neurons.items():
        expected = simulated(one.module, currents[name], spikes[name])
        torch.testing.assert_close(membranes[name].double(), expected, rtol=1e-5, atol=1e-5)
        sure = expected.abs() > 1e-5
        assert torch.equal((expected >= 0)[sure], (spikes[name] != 0)[sure])


@pytest.mark.many(2)
@torch.no_grad()
def test_every_score_equals_the_formula(case: Case) -> None:
    network, x, result = case.network, case.x, case.scores
    membranes, _ = seen(network, x)
    entering = inputs_of(network, x, nn.Conv2d)
    inside = {
        key: (drives[0], norms[0])
        for key, (drives, norms, _, encodes) in case.links.items()
        if norms and not encodes
    }
    assert set(result.values) - set(result.fallback) == {f"{key}.weight" for key in inside}
    for key, (driven, norm_name) in inside.items():
        norm: Any = network.module.get_submodule(norm_name)
        u = membranes[driven].double()  # (T, N, C, H, W)
        mean, variance = u.mean((0, 1, 3, 4)), u.var((0, 1, 3, 4), correction=0).clamp(min=1e-6)
        log_density = Normal(mean, variance.sqrt()).log_prob(torch.zeros(()))
        factor = norm.weight.double().abs() / (norm.running_var.double() + norm.eps).sqrt()
        rate = entering[key].double().abs().flatten(0, -4).mean((0, 2, 3))
        weight = network.weight(f"{key}.weight").double().abs()
        expected = weight.log() + rate.log()[:, None, None]
        expected = expected + (factor.log() + log_density)[:, None, None, None]
        torch.testing.assert_close(result.values[f"{key}.weight"], expected, rtol=1e-4, atol=1e-3)
