"""Single neurons of SpikingJelly 2.x: what is seen of each, and what is left out."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import One, calibrated, images, left_out, links_of, lively, output

from snnprune.graph.libraries import library_of, reset_states
from snnprune.graph.libraries.library import reshape_per_channel
from snnprune.graph.trace import trace

with warnings.catch_warnings():
    # of 0.0.0.0.14, where that lies in front
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import layer, neuron, surrogate

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
    statistics = calibrated(found, FRAMES)
    assert 0.05 < float(statistics.neurons["2"].firing_rate.mean()) < 0.95
    assert not left_out(statistics)
    assert torch.equal(output(found, FRAMES), before)


EXPLAINED = ("IFNode", "LIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode")


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_membrane_of_this_neuron_in_a_loop_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    found = calibrated(One(getattr(neuron, name)()).eval(), images(4, 1, 8, 8))
    assert float(found.neurons["spikes"].firing_rate.mean()) > 0.05
    assert not left_out(found)


FURTHER: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(neuron, name) for name in ("CUBALIFNode", "HalfThresholdIFNode", "RAFNode")},
    "MPBNLIFNode": lambda: neuron.MPBNLIFNode(out_channels=4),
}


@pytest.mark.parametrize("name", FURTHER)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    spikes: Any = FURTHER[name]()
    spikes.step_mode = "m"
    found = calibrated(network(spikes), FRAMES)
    assert float(found.neurons["2"].firing_rate.mean()) > 0.05
    assert not left_out(found)


def test_a_neuron_that_counts_is_left_out_and_the_layer_behind_it_is_fed_by_spikes() -> None:
    found = trace(network(neuron.ILIFNode(step_mode="m")), FRAMES)
    assert links_of(found) == {
        "0": (["2"], ["1"], [], True),
        "3": (["5"], ["4"], [], False),
    }
    statistics = calibrated(found, FRAMES)
    assert set(statistics.neurons) == {"5"}
    assert "2: its spikes do not follow" in " ".join(statistics.warnings)
    assert statistics.layers["3.weight"].input_values == "counts"


@pytest.mark.parametrize("spikes", [neuron.TernaryLIFNode, neuron.OTTTLIFNode])
def test_what_does_not_follow_from_the_membrane_is_left_out(spikes: Callable[[], Any]) -> None:
    node = spikes()
    assert library_of(node) is not None
    module = nn.Sequential(nn.Conv2d(1, 4, 3), node).eval()
    nn.init.constant_(module.get_parameter("0.bias"), 2.5)
    statistics = calibrated(module, FRAMES[0])
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
        reset_states(module)
        assert torch.equal(module(images(2, 3) + 1), first)


def test_constants_are_read_off_the_neurons() -> None:
    neurons = (
        neuron.LIFNode(tau=4.0),
        neuron.ParametricLIFNode(init_tau=2.0, v_reset=None),
        neuron.IFNode(v_threshold=0.5),
        neuron.EIFNode(),
    )
    found = [library_of(one).constants(one) for one in neurons]  # type: ignore[union-attr]  # all known
    assert [one.beta for one in found] == [0.75, pytest.approx(0.5), 1.0, None]
    assert [one.threshold for one in found] == [1.0, 1.0, 0.5, 1.0]
    assert [one.decay_input for one in found[:3]] == [True, True, False]


@pytest.mark.parametrize(
    ("shape", "found"), [((), ()), ((1, 1), ()), ((3,), (3,)), ((1, 3, 1, 1), (3,)), ((3, 2), ())]
)
def test_a_threshold_is_one_number_or_one_for_each_channel(
    shape: tuple[int, ...], found: tuple[int, ...]
) -> None:
    given = torch.rand(shape, requires_grad=True)
    read = reshape_per_channel(given)
    assert read.shape == found
    assert not read.requires_grad
    expected = given.detach().flatten() if found else given.detach().mean()
    torch.testing.assert_close(read, expected)
    assert float(reshape_per_channel(0.5)) == 0.5


def test_layers_that_are_no_neurons_are_not_taken_for_one() -> None:
    for module in (nn.Linear(1, 1), layer.Conv2d(1, 1, 1), surrogate.ATan()):
        assert library_of(module) is None


def test_ternary_spikes_in_a_loop_leave_their_layer_to_magnitude() -> None:
    torch.manual_seed(0)
    found = calibrated(One(neuron.TernaryIFNode()).eval(), images(4, 1, 8, 8))
    assert not found.layers["conv.weight"].drives
    assert "do not follow" in (found.layers["conv.weight"].refused or "")
