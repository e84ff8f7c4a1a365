"""Neurons of SpikingJelly 2.x for all time steps at once: of no known class, seen by comparison."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from zoo import images

from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate


class AtOnce(nn.Module):
    """One convolution and one neuron that sees all time steps at once."""

    def __init__(self, spikes: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.spikes = layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), spikes
        nn.init.constant_(self.bn.bias, 1.5)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes(self.bn(self.conv(x.expand(3, *x.shape)))).mean((3, 4))


AT_ONCE: dict[str, Callable[[], nn.Module]] = {
    "PSN": lambda: neuron.PSN(T=3, surrogate_function=surrogate.ATan()),
    "MaskedPSN": lambda: neuron.MaskedPSN(k=2, T=3, surrogate_function=surrogate.ATan()),
    "SlidingPSN": lambda: neuron.SlidingPSN(k=2, surrogate_function=surrogate.ATan()),
    "DSRIFNode": lambda: neuron.DSRIFNode(T=3),
    "GatedLIFNode": lambda: neuron.GatedLIFNode(T=3),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_neuron_of_no_known_class_is_seen_where_it_compares(name: str) -> None:
    torch.manual_seed(0)
    x = images(4, 1, 8, 8)
    module = AtOnce(AT_ONCE[name]()).eval()
    with torch.no_grad():
        expected = module(x)
    functional.reset_net(module)
    network = trace(module, x)
    assert network.neurons["spikes"].library.name == "comparison"
    outputs: list[Tensor] = []
    found = calibrate(network, [(x, None)], run=lambda m, x: outputs.append(m(x)))
    assert torch.equal(outputs[0], expected)
    (drive,) = found.layers["conv.weight"].drives
    # an independent count of the same spikes
    torch.testing.assert_close(drive.neuron.firing_rate, rate_of(module, x))


def rate_of(module: Any, x: Tensor) -> Tensor:
    """Spikes per neuron and step by channel, counted in the output of the neuron's module."""
    seen: list[Tensor] = []
    handle = module.spikes.register_forward_hook(lambda _, __, out: seen.append(out != 0))
    with torch.no_grad():
        functional.reset_net(module)
        module(x)
    handle.remove()
    return seen[0].double().mean((0, 1, 3, 4))
