"""ResNet-19 with spiking neurons after each addition."""

from torch import Tensor, nn

from snnprune.models.blocks import (
    Encoder,
    NeuronOptions,
    SpikingConv,
    SpikingLinear,
    apply_per_step,
)
from snnprune.models.lif import LIF, Dynamics

STAGES = ((128, 3), (256, 3), (512, 2))  # (channels, blocks)


class Shortcut(nn.Module):
    """1x1 convolution and batch normalisation, where a block changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """Two convolutions and a shortcut that together drive the neuron after the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int, dynamics: Dynamics) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.first = SpikingConv(inputs, outputs, dynamics, stride=stride)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if same else Shortcut(inputs, outputs, stride)
        self.neuron = LIF(dynamics)

    def forward(self, spikes: Tensor) -> Tensor:
        """(T, N, C, H, W) spikes to (T, N, C', H', W') spikes."""
        main = apply_per_step(lambda step: self.norm(self.conv(step)), self.first(spikes))
        return self.neuron(main + apply_per_step(self.shortcut, spikes))


class ResNet19(nn.Module):
    """Encoder, eight residual blocks, average pooling, two linear layers; logits per step."""

    def __init__(self, encoder: Encoder, strides: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        dynamics = encoder.neuron.dynamics
        channels = encoder.conv.out_channels
        blocks = []
        for (outputs, count), stride in zip(STAGES, strides, strict=True):
            for index in range(count):
                blocks.append(Residual(channels, outputs, stride if index == 0 else 1, dynamics))
                channels = outputs
        self.encoder = encoder
        self.blocks = nn.Sequential(*blocks)
        self.hidden = SpikingLinear(channels, 256, dynamics)
        self.classifier = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from images (N, C, H, W) or events (T, N, C, H, W)."""
        spikes = self.blocks(self.encoder(x))
        return self.classifier(self.hidden(spikes.mean((-2, -1))))


def res_snn_19(
    *,
    in_channels: int = 3,
    size: int = 32,  # noqa: ARG001  (any size: the average pooling takes it all)
    classes: int = 10,
    time_steps: int = 5,
    neuron: NeuronOptions = None,
) -> ResNet19:
    """Build the Res-SNN-19 of Zheng et al. 2021, arXiv 2011.05280: stem 128, strides 1, 2, 2."""
    dynamics = Dynamics.from_options(neuron)
    return ResNet19(Encoder(in_channels, 128, dynamics, time_steps=time_steps), (1, 2, 2), classes)


def res_snn_19_light(
    *,
    in_channels: int = 3,
    size: int = 32,  # noqa: ARG001  (any size, as above)
    classes: int = 10,
    time_steps: int = 5,
    neuron: NeuronOptions = None,
) -> ResNet19:
    """Build the ResNet-19 of Kim et al. 2022, arXiv 2207.01382: stem 64, strides 2, 2, 2."""
    dynamics = Dynamics.from_options(neuron)
    return ResNet19(Encoder(in_channels, 64, dynamics, time_steps=time_steps), (2, 2, 2), classes)
