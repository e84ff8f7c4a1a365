"""Neurons of SpikingJelly 2.x that need something of their own."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import images, links_of, lively, output

from snnprune.calibration import calibrate
from snnprune.network import trace
from snnprune.network.libraries import library_of, put_at_rest

with warnings.catch_warnings():
    # of 0.0.0.0.14, where that lies in front
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import layer, neuron

if not hasattr(neuron, "__path__"):
    pytest.skip("needs spikingjelly 2.x", allow_module_level=True)

FRAMES = images(3, 2, 1, 8, 8)


def network(spikes: nn.Module) -> nn.Module:
    """A neuron between two convolutions, and one that is well known at the end."""
    torch.manual_seed(0)
    made = nn.Sequential(
        *(layer.Conv2d(1, 4, 3, step_mode="m"), layer.BatchNorm2d(4, step_mode="m"), spikes),
        *(layer.Conv2d(4, 5, 3, step_mode="m"), layer.BatchNorm2d(5, step_mode="m")),
        neuron.LIFNode(step_mode="m", decay_input=False),
    )
    nn.init.constant_(made.get_parameter("1.bias"), 1.5)
    return lively(made)


@torch.no_grad()
def test_a_complementary_neuron_is_seen_although_it_has_a_step_function_of_its_own() -> None:
    module = network(neuron.ComplementaryLIFNode(step_mode="m"))
    found = trace(module, FRAMES)
    before = output(found, FRAMES)
    statistics = calibrate(found, [(FRAMES, None)])
    assert 0.05 < float(statistics.neurons["2"].firing_rate.mean()) < 0.95
    assert not [warning for warning in statistics.warnings if "left out" in warning]
    assert torch.equal(output(found, FRAMES), before)


FURTHER: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(neuron, name) for name in ("CUBALIFNode", "HalfThresholdIFNode", "RAFNode")},
    "MPBNLIFNode": lambda: neuron.MPBNLIFNode(out_channels=4),
}


@pytest.mark.parametrize("name", FURTHER)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    spikes: Any = FURTHER[name]()
    spikes.step_mode = "m"
    found = calibrate(trace(network(spikes), FRAMES), [(FRAMES, None)])
    assert float(found.neurons["2"].firing_rate.mean()) > 0.05
    assert not [warning for warning in found.warnings if "left out" in warning]


def test_a_neuron_that_counts_is_left_out_and_the_layer_behind_it_is_fed_by_spikes() -> None:
    found = trace(network(neuron.ILIFNode(step_mode="m")), FRAMES)
    assert links_of(found) == {
        "0": (["2"], ["1"], [], True),
        "3": (["5"], ["4"], [], False),
    }
    statistics = calibrate(found, [(FRAMES, None)])
    assert set(statistics.neurons) == {"5"}
    assert "2: its spikes do not follow" in " ".join(statistics.warnings)
    assert statistics.layers["3.weight"].input_values == "counts"


@pytest.mark.parametrize("spikes", [neuron.TernaryLIFNode, neuron.OTTTLIFNode])
def test_what_does_not_follow_from_the_membrane_is_left_out(spikes: Callable[[], Any]) -> None:
    node = spikes()
    assert library_of(node) is not None
    module = nn.Sequential(nn.Conv2d(1, 4, 3), node).eval()
    nn.init.constant_(module.get_parameter("0.bias"), 2.5)
    statistics = calibrate(trace(module, FRAMES[0]), [(FRAMES[0], None)])
    assert not statistics.neurons
    assert "1: its spikes do not follow" in " ".join(statistics.warnings)


def test_a_surrogate_that_is_a_function_is_put_back() -> None:
    def fire(distance: Tensor) -> Tensor:
        return (distance >= 0).to(distance)

    node = neuron.IFNode()
    del node.surrogate_function
    node.surrogate_function = fire
    told: list[Tensor] = []
    known = library_of(node)
    assert known is not None
    with known.recording(node, told.append):
        node(images(2, 3))
    assert len(told) == 1
    assert node.surrogate_function is fire
    assert "surrogate_function" not in dict(node.named_children())


def test_integrators_and_filters_are_put_at_rest_with_the_neurons() -> None:
    module = nn.Sequential(neuron.IFNode(), layer.SynapseFilter(tau=2.0))
    with torch.no_grad():
        first = module(images(2, 3) + 1)
        assert not torch.equal(module(images(2, 3) + 1), first)
        put_at_rest(module)
        assert torch.equal(module(images(2, 3) + 1), first)
