"""Networks as users write them, whose channels are followed or cannot be, on pictures 1 x 28 x 28.

Tests name them as `file.py:function` too, so that this file imports nothing from its neighbours.
"""

import snntorch
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True, "step_mode": "m"}
STEPS = 2


def conv(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its BatchNorm, for all steps at once."""
    norm = layer.BatchNorm2d(outputs, step_mode="m")
    nn.init.uniform_(norm.bias, 0.2, 1.0)
    made = layer.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False, step_mode="m")
    return nn.Sequential(made, norm)


def spiking() -> nn.Module:
    made: nn.Module = neuron.ParametricLIFNode(**LIF)
    return made


class Chain(nn.Module):
    """SpikingJelly: conv, BN, neuron, pool, twice, then two linear layers behind a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(conv(1, 8, stride=2), spiking(), layer.MaxPool2d(2, step_mode="m")),
            *(conv(8, 6), spiking(), layer.Dropout(0.1, step_mode="m")),
        )
        self.hidden, self.spikes = nn.Linear(6 * 49, 12), spiking()
        self.readout = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.features(x.expand(STEPS, *x.shape)).flatten(2)
        made: Tensor = self.readout(self.spikes(self.hidden(spikes))).mean(0)
        return made


class Residual(nn.Module):
    """SpikingJelly: a shortcut into the neuron, then spikes that are added behind theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(1, 6, stride=2), spiking()
        self.left, self.shortcut, self.second = (
            conv(6, 8, stride=2),
            conv(6, 8, stride=2),
            spiking(),
        )
        self.inner, self.third = conv(8, 5), spiking()
        self.outer, self.fourth = conv(5, 8), spiking()
        self.last, self.fifth = conv(8, 6), spiking()
        self.readout = layer.Linear(6, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.stem(x.expand(STEPS, *x.shape)))
        spikes = self.second(self.left(spikes) + self.shortcut(spikes))
        spikes = self.fourth(self.outer(self.third(self.inner(spikes)))) + spikes
        made: Tensor = self.readout(self.fifth(self.last(spikes)).mean((-1, -2))).mean(0)
        return made


class Learnt(nn.Module):
    """snnTorch: a decay and a threshold learnt for each channel, in a time loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.lif1 = snntorch.Leaky(beta=torch.linspace(0.3, 0.9, 8).view(8, 1, 1), learn_beta=True)
        self.fc1 = nn.Linear(8 * 49, 9)
        self.lif2 = snntorch.Leaky(
            beta=torch.linspace(0.5, 0.9, 9),
            learn_beta=True,
            threshold=torch.linspace(0.2, 0.4, 9),
            learn_threshold=True,
        )
        self.fc2 = nn.Linear(9, 10)
        nn.init.uniform_(self.bn1.bias, 0.2, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.lif1.init_leaky(), self.lif2.init_leaky()
        steps = []
        for _ in range(STEPS):
            spikes, one = self.lif1(self.bn1(self.conv1(x)), one)
            pooled = nn.functional.max_pool2d(spikes, 2)
            spikes, other = self.lif2(self.fc1(pooled.flatten(1)), other)
            steps.append(self.fc2(spikes))
        return torch.stack(steps).mean(0)


class SideBySide(nn.Module):
    """Spikes of two branches concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.first = conv(1, 4, stride=2), spiking()
        self.two, self.second = conv(1, 4, stride=2), spiking()
        self.both, self.third = conv(8, 4, stride=2), spiking()
        self.readout = nn.Linear(4 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(STEPS, *x.shape)
        spikes = torch.cat([self.first(self.one(x)), self.second(self.two(x))], 2)
        made: Tensor = self.readout(self.third(self.both(spikes)).flatten(2)).mean(0)
        return made


class Flattened(nn.Module):
    """Flattened spikes of two branches, of which a linear layer reads the first ones first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.first = conv(1, 4, stride=2), spiking()
        self.two, self.second = conv(1, 4, stride=2), spiking()
        self.hidden, self.third = nn.Linear(2 * 4 * 196, 8), spiking()
        self.readout = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(STEPS, *x.shape)
        spikes = [self.first(self.one(x)).flatten(2), self.second(self.two(x)).flatten(2)]
        made: Tensor = self.readout(self.third(self.hidden(torch.cat(spikes, -1)))).mean(0)
        return made


class FixedWidth(nn.Module):
    """Code that says how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(1, 4, stride=2), spiking()
        self.readout = nn.Linear(4 * 196, 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.stem(x.expand(STEPS, *x.shape)))
        made: Tensor = self.readout(spikes.view(STEPS, -1, 4 * 196)).mean(0)
        return made


class Depthwise(nn.Module):
    """A convolution of each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(1, 4, stride=2), spiking()
        self.each, self.second = conv(4, 4, groups=4), spiking()
        self.readout = nn.Linear(4 * 196, 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.stem(x.expand(STEPS, *x.shape)))
        made: Tensor = self.readout(self.second(self.each(spikes)).flatten(2)).mean(0)
        return made


class Scaled(nn.Module):
    """Values by channel that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(1, 4, stride=2), spiking()
        self.scale = torch.linspace(0.5, 1.5, 4).view(4, 1, 1)
        self.last, self.second = conv(4, 4, stride=2), spiking()
        self.readout = nn.Linear(4 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.scale * self.stem(x.expand(STEPS, *x.shape)))
        made: Tensor = self.readout(self.second(self.last(spikes)).flatten(2)).mean(0)
        return made


ONE = FixedWidth()


def same_each_time() -> nn.Module:
    """One module for all who ask."""
    return ONE
