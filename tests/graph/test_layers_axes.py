"""Where channels are in a membrane, however a current is turned and reshaped on its way there.

Samples, tokens and channels are as many, so that no size tells one from the other.
"""

from collections.abc import Callable

import pytest
import torch
from layer_twins import Neuron
from test_layers_products import output
from torch import Tensor, nn

from snnprune.graph.network import NOWHERE, Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate

C, THRESHOLD = 6, 0.6


class Tokens(nn.Module):
    """Linear or Conv1d over (N, tokens, C), a norm, and what is done with that."""

    def __init__(self, kind: str, moved: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.lif, self.kind, self.moved = nn.Linear(5, C), Neuron(), kind, moved
        self.layer = nn.Linear(C, C) if kind == "linear" else nn.Conv1d(C, C, 3, padding=1)
        self.norm, self.neuron, self.last = nn.BatchNorm1d(C), Neuron(), nn.Linear(C, 3)
        for layer in (self.first, self.layer):
            nn.init.uniform_(layer.weight, -1, 1)
        nn.init.uniform_(self.norm.bias, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for _ in range(3):
            y = self.lif(self.first(x))
            current = self.layer(y).mT if self.kind == "linear" else self.layer(y.mT)
            spikes = self.neuron(self.moved(self.norm(current)))  # (N, C, tokens) is moved
            out.append(self.last(spikes.reshape(len(x), -1)[:, :C]))
        return torch.stack(out)


MOVED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "as it is": (lambda y: y, -2),
    "a picture": (lambda y: y.unflatten(2, (2, 3)), -3),
    "a picture with a step": (lambda y: y.unsqueeze(0).view(1, C, C, 2, 3), -3),
    "tokens first": (lambda y: y.transpose(1, 2), -1),
    "tokens before all": (lambda y: y.permute(2, 0, 1), -1),
    "channels before all": (lambda y: y.permute(1, 0, 2), 1),
}
X = torch.rand(C, C, 5, generator=torch.Generator().manual_seed(1))


def membranes(network: Network) -> Tensor:
    """u - u_th before reset of a simulation from what enters the neuron, (T, ...)."""
    currents: list[Tensor] = []
    neuron = network.module.get_submodule("neuron")
    handle = neuron.register_forward_pre_hook(lambda _, args: currents.append(args[0].double()))
    output(network, X)
    handle.remove()
    held, found = torch.zeros_like(currents[0]), []
    for current in currents:
        u = 0.5 * held + current
        held = u * (u <= THRESHOLD)
        found.append(u - THRESHOLD)
    return torch.stack(found)


@pytest.mark.many(6)
@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("name", MOVED)
def test_statistics_are_those_of_the_channels(name: str, kind: str) -> None:
    moved, axis = MOVED[name]
    network = trace(Tokens(kind, moved).eval(), X)
    found = calibrate(network, [(X, None)]).neurons["neuron"]
    u = membranes(network).movedim(axis, 0).flatten(1)
    torch.testing.assert_close(found.membrane_mean, u.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.membrane_var, u.var(1, correction=0), rtol=0, atol=1e-6)


SCATTERED: dict[str, Callable[[Tensor], Tensor]] = {
    "heads": lambda y: y.unflatten(1, (2, 3)).transpose(2, 3),
    "turned and flat": lambda y: y.transpose(1, 2).flatten(1),
}


@pytest.mark.parametrize("name", SCATTERED)
def test_channels_along_no_single_dimension_are_left_out_and_not_guessed(name: str) -> None:
    module = Tokens("convolution", SCATTERED[name]).eval()
    network = trace(module, X)
    assert network.neurons["neuron"].axis == NOWHERE
    found = calibrate(network, [(X, None)])
    assert "neuron" not in found.neurons
    assert found.layers["layer.weight"].refused == (
        "neuron: its membrane has no axis that is surely that of its channels"
    )
