"""Small networks that the tests of the search share."""

import warnings
from collections.abc import Callable
from typing import Any

import snntorch
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.models import ModelSpec, build_model

with warnings.catch_warnings():
    # of spikingjelly 0.0.0.0.14, where that lies in front
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import layer, neuron


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def conv_snn(**args: Any) -> nn.Module:
    torch.manual_seed(0)
    small = {"width": 4, "depth": 2, "size": 8, "in_channels": 1, "time_steps": 2}
    return build_model(ModelSpec(name="conv-snn", args={**small, **args}))


def traced(module: nn.Module | None = None, x: Tensor | None = None) -> Network:
    return trace(module or conv_snn(), images(2, 1, 8, 8) if x is None else x)


class Own(nn.Module):
    """A user's own layers: functional calls, a weight with a state beside it, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.bias = nn.Parameter(torch.ones(6))
        self.threshold = nn.Parameter(torch.tensor(0.5))
        self.again, self.fc = nn.Linear(6, 6), nn.Linear(6, 3)
        self.again.weight = self.weight
        self.norm = nn.LayerNorm(6)
        self.mem: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.norm(x), torch.zeros(len(x), 3)
        for _ in range(4):
            mem = torch.zeros_like(x) if self.mem is None else self.mem
            self.mem = 0.5 * mem + nn.functional.linear(x, self.weight, self.bias)
            distance = self.mem - self.threshold
            soft = torch.sigmoid(4 * distance)
            spikes = (distance >= 0).to(x) + soft - soft.detach()
            total = total + self.fc(self.again(spikes))
        return total


class SnnTorchNet(nn.Module):
    """Steps through time, as the tutorials of snnTorch do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), snntorch.BatchNormTT2d(4, 3)
        self.lif = snntorch.Leaky(beta=0.8, learn_beta=True, init_hidden=True)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset_mem()
        steps = [self.lif(norm(self.conv(x))) for norm in self.norm]
        return torch.stack([self.fc(spikes.flatten(1)) for spikes in steps])


class SpikingJellyNet(nn.Module):
    """Several steps at once, with a learnt time constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = (
            layer.Conv2d(1, 4, 3, padding=1, step_mode="m"),
            layer.BatchNorm2d(4, step_mode="m"),
        )
        self.lif = neuron.ParametricLIFNode(step_mode="m")
        self.fc = layer.Linear(4 * 64, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.norm(self.conv(x.expand(3, *x.shape))))
        return self.fc(spikes.flatten(2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "conv-snn": (conv_snn, images(4, 1, 8, 8)),
    "spikingjelly": (SpikingJellyNet, images(4, 1, 8, 8)),
    "snntorch": (SnnTorchNet, images(4, 1, 8, 8)),
    "own": (Own, images(4, 6)),
}
