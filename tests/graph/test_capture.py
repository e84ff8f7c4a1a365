"""What is seen while a network runs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.hooks import Observer, observe
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    module = build_model(ModelSpec(name="conv-snn", args={"width": 4, "depth": 2})).eval()
    return trace(module, torch.rand(1, 1, 28, 28))


def simulated(module: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    """Membranes of the first neuron by a loop of its own, written from Eq. 2-4."""
    encoder: Any = module.get_submodule("encoder")
    current = encoder.norm(encoder.conv(x)).double()
    h, membranes, spikes = torch.zeros_like(current), [], []
    for _ in range(4):
        u = h + current
        s = (u >= 1.0).double()
        h = 0.5 * u * (1 - s)
        membranes.append(u)
        spikes.append(s)
    return {"u": membranes, "s": spikes}


@torch.no_grad()
def test_membranes_and_spikes_equal_a_simulation_of_the_equations(network: Network) -> None:
    x = torch.rand(3, 1, 28, 28)
    seen: dict[str, Tensor] = {}

    def keep(kind: str) -> Observer:
        return lambda name, tensor: seen.__setitem__(f"{kind} {name}", tensor)

    with observe(network, on_membrane=keep("u"), on_spikes=keep("s")):
        network.module(x)
    expected = simulated(network.module, x)
    torch.testing.assert_close(
        seen["u encoder.neuron"].double() + 1.0, torch.stack(expected["u"]), rtol=0, atol=1e-5
    )
    assert torch.equal(seen["s encoder.neuron"].double(), torch.stack(expected["s"]))
    for name in network.neurons:
        assert torch.equal(seen[f"u {name}"] >= 0, seen[f"s {name}"] == 1)


@torch.no_grad()
def test_the_output_is_bit_identical_while_watching_and_after(network: Network) -> None:
    x = torch.rand(3, 1, 28, 28)
    before = network.module(x)
    nothing = lambda name, tensor: None  # noqa: E731
    with observe(
        network, on_input=nothing, on_membrane=nothing, on_spikes=nothing, on_norm=nothing
    ):
        during = network.module(x)
    assert torch.equal(before, during)
    assert torch.equal(before, network.module(x))


@torch.no_grad()
def test_the_tensor_that_enters_a_layer_is_seen(network: Network) -> None:
    x = torch.rand(3, 1, 28, 28)
    seen: dict[str, Tensor] = {}
    with observe(network, on_input=seen.__setitem__):
        network.module(x)
    assert set(seen) == set(network.layers)
    assert torch.equal(seen["encoder.conv.weight"], x)
    assert seen["blocks.0.conv.weight"].shape == (4 * 3, 4, 14, 14)


def test_everything_comes_off_after_an_exception(network: Network) -> None:
    def fail(name: str, tensor: Tensor) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), observe(network, on_membrane=fail):
        network.module(torch.rand(1, 1, 28, 28))
    for neuron in network.neurons.values():
        assert neuron.module.on_distance is None
        assert not neuron.module._forward_hooks
    network.module(torch.rand(1, 1, 28, 28))
