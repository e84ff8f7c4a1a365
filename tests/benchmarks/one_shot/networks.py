"""Networks of the one-shot benchmark that snnprune has no name for."""

from itertools import pairwise

from torch import Tensor, nn

from snnprune.models.lif import LIF, Dynamics
from snnprune.models.networks import Encoder, Residual, SpikingLinear, apply_per_step, as_steps


class SmallResNet(nn.Module):
    """Encoder, three residual blocks of which two halve the image, pooling, a linear layer."""

    def __init__(self, width: int, dynamics: Dynamics, time_steps: int) -> None:
        super().__init__()
        self.encoder = Encoder(1, width, dynamics, time_steps=time_steps)
        self.blocks = nn.Sequential(
            Residual(width, width, 1, dynamics),
            Residual(width, 2 * width, 2, dynamics),
            Residual(2 * width, 4 * width, 2, dynamics),
        )
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(4 * width * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from images (N, 1, 28, 28)."""
        spikes = self.blocks(apply_per_step(self.pool, self.encoder(x)))
        return self.classifier(apply_per_step(self.pool, spikes).flatten(2))


class Plain(nn.Module):
    """A spiking convolution without BatchNorm."""

    def __init__(self, inputs: int, outputs: int, dynamics: Dynamics) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight)  # or deep layers would hardly fire
        self.neuron = LIF(dynamics)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(apply_per_step(self.conv, x))


class Bare(nn.Module):
    """Three convolutions and two linear layers with biases and no normalisation."""

    def __init__(self, width: int, dynamics: Dynamics, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        channels = [1, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(Plain(a, b, dynamics) for a, b in pairwise(channels))
        self.pool = nn.MaxPool2d(2)
        self.hidden = SpikingLinear(4 * width * 9, 128, dynamics)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from images (N, 1, 28, 28)."""
        spikes = as_steps(x).expand(self.time_steps, -1, -1, -1, -1)
        for block in self.blocks:
            spikes = apply_per_step(self.pool, block(spikes))
        return self.classifier(self.hidden(spikes.flatten(2)))


def small_resnet(*, width: int = 16, time_steps: int = 4) -> SmallResNet:
    """A residual network for 28 x 28 grey images."""
    return SmallResNet(width, Dynamics(), time_steps)


def bare(*, width: int = 16, time_steps: int = 4) -> Bare:
    """A network without BatchNorm, of neurons with soft reset."""
    return Bare(width, Dynamics(reset="soft", beta=0.75), time_steps)
