"""Recurrent layers, held against the plain neuron and against a loop of their own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import Dynamics, fire
from snnprune.models.networks import RecurrentLayer, recurrent_snn

ALL = (
    Dynamics(beta=0.9),
    Dynamics(reset="soft", detach_reset=False),
    Dynamics(v_rest=0.1, v_reset=-0.2, decay_input=True, surrogate="triangle"),
)


def layer_of(dynamics: Dynamics) -> RecurrentLayer:
    torch.manual_seed(0)
    layer = RecurrentLayer(6, 5, dynamics)
    with torch.no_grad():
        layer.linear.weight.mul_(6)
        layer.recurrent.weight.mul_(3)
    return layer


def events() -> Tensor:
    return (torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


@pytest.mark.parametrize("dynamics", ALL)
def test_without_recurrent_weights_it_is_the_plain_neuron_and_its_gradient(
    dynamics: Dynamics,
) -> None:
    layer, x = layer_of(dynamics), events()
    with torch.no_grad():
        layer.recurrent.weight.zero_()
    late = torch.arange(9.0).view(9, 1, 1)
    ours, plain = layer(x), fire(layer.linear(x), dynamics)
    assert torch.equal(ours, plain)
    assert 0 < plain.mean() < 1
    found, expected = (
        torch.autograd.grad((spikes * late).sum(), layer.linear.weight)[0]
        for spikes in (ours, plain)
    )
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_spikes_come_back_a_step_later() -> None:
    dynamics = Dynamics(beta=0.5)
    layer, x = layer_of(dynamics), events().double().numpy()
    weight, bias, back = (
        one.detach().double().numpy()
        for one in (layer.linear.weight, layer.linear.bias, layer.recurrent.weight)
    )
    held, spikes = np.zeros((3, 5)), np.zeros((3, 5))
    expected = []
    for step in x:
        u = held + step @ weight.T + bias + spikes @ back.T
        spikes = (u >= 1).astype(float)
        held = 0.5 * u * (1 - spikes)
        expected.append(spikes)
    found = layer(events()).detach().numpy()
    assert np.array_equal(found, np.stack(expected))
    with torch.no_grad():
        layer.recurrent.weight.zero_()
    assert not np.array_equal(layer(events()).detach().numpy(), found)


def test_both_weights_drive_the_neuron_and_the_last_layer_none() -> None:
    spec = ModelSpec(name="recurrent-snn", args={"in_channels": 6, "classes": 3, "width": 5})
    network = trace(build_model(spec).eval(), events())
    driven = {key: [link.neuron for link in layer.links] for key, layer in network.layers.items()}
    (neuron,) = network.neurons
    assert driven == {
        "layers.0.linear.weight": [neuron],
        "layers.0.recurrent.weight": [neuron],
        "classifier.weight": [],
    }
    assert network.neurons[neuron].constants.beta == pytest.approx(0.5)


def test_logits_are_those_of_every_step() -> None:
    network = recurrent_snn(in_channels=6, classes=3, width=5, depth=2)
    assert network(events()).shape == (9, 3, 3)
