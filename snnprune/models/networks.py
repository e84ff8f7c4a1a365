"""The built-in networks, and what they are made of; activations are (T, N, ...) everywhere."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.models.lif import LIF, Dynamics
from snnprune.models.lif.plain import leak, spike

NeuronOptions = dict[str, Any] | None


def apply_per_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for (N, ...) to each of the T steps of x (T, N, ...) in one call."""
    y = layer(x.flatten(0, 1))
    return y.unflatten(0, (x.shape[0], x.shape[1]))


def as_steps(x: Tensor, sample_dims: int = 3) -> Tensor:
    """A still image (N, C, H, W) as one step (1, N, C, H, W); event data (T, N, ...) as it is."""
    return x.unsqueeze(0) if x.dim() == sample_dims + 1 else x


class SpikingConv(nn.Module):
    """Convolution, batch normalisation, LIF."""

    def __init__(
        self, inputs: int, outputs: int, dynamics: Dynamics, *, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)
        self.neuron = LIF(dynamics)

    def current(self, x: Tensor) -> Tensor:
        """What the neurons receive: (T, N, C_out, H', W')."""
        return apply_per_step(lambda step: self.norm(self.conv(step)), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.current(x))


class Encoder(SpikingConv):
    """A `SpikingConv` that turns a still image into spikes over `time_steps` (direct encoding)."""

    def __init__(
        self, inputs: int, outputs: int, dynamics: Dynamics, *, time_steps: int, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, dynamics, bias=bias)
        if time_steps < 1:
            raise InputError(f"{time_steps} is not a number of steps", field="time_steps")
        self.time_steps = time_steps

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (T, N, C, H, W) from an image (N, C, H, W) or from events (T, N, C, H, W)."""
        current = self.current(as_steps(x))
        if len(current) == 1:  # the same image at every step: convolve it once
            current = current.expand(self.time_steps, -1, -1, -1, -1)
        return self.neuron(current)


class SpikingLinear(nn.Module):
    """Linear layer and LIF."""

    def __init__(self, inputs: int, outputs: int, dynamics: Dynamics) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.neuron = LIF(dynamics)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.linear(x))


class ConvSNN(nn.Module):
    """`depth` spiking convolutions, halving the image after each but the last, and a linear layer.

    Channels double from `width` up to four times that. Logits (T, N, classes).
    """

    def __init__(self, channels: list[int], side: int, classes: int, encoder: Encoder) -> None:
        super().__init__()
        dynamics = encoder.neuron.dynamics
        self.encoder = encoder
        self.blocks = nn.ModuleList(SpikingConv(a, b, dynamics) for a, b in pairwise(channels))
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(channels[-1] * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from images (N, C, H, W) or events (T, N, C, H, W)."""
        spikes = self.encoder(x)
        for block in self.blocks:
            spikes = block(apply_per_step(self.pool, spikes))
        return self.classifier(spikes.flatten(2))


def conv_snn(
    *,
    in_channels: int = 1,
    size: int = 28,
    classes: int = 10,
    time_steps: int = 4,
    width: int = 16,
    depth: int = 4,
    neuron: NeuronOptions = None,
) -> ConvSNN:
    """Build `conv-snn`: `width` channels in the first of `depth` convolutions; `size` in pixels."""
    if width < 1 or depth < 1:
        raise InputError("must be at least 1", field="width" if width < 1 else "depth")
    side = size >> (depth - 1)
    if side < 1:
        raise InputError(
            f"{depth} layers halve an image of {size} pixels to nothing", field="depth"
        )
    channels = [width * min(2**layer, 4) for layer in range(depth)]
    encoder = Encoder(
        in_channels, channels[0], Dynamics.from_options(neuron), time_steps=time_steps
    )
    return ConvSNN(channels, side, classes, encoder)


STEM = 64
# channels of the convolutions after the encoder, a pooling after each stage
VGG_WIDTHS = ((64,), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen spiking convolutions in five stages and a linear layer. Logits (T, N, classes)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        channels = encoder.conv.out_channels
        self.encoder = encoder
        self.stages = nn.ModuleList()
        for widths in VGG_WIDTHS:
            blocks = []
            for width in widths:
                blocks.append(SpikingConv(channels, width, encoder.neuron.dynamics, bias=True))
                channels = width
            self.stages.append(nn.Sequential(*blocks))
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(channels, classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from images (N, C, H, W) or events (T, N, C, H, W)."""
        spikes = self.encoder(x)
        for stage in self.stages:
            spikes = stage(spikes)
            if spikes.shape[-1] > 1 and spikes.shape[-2] > 1:  # small images are pooled less often
                spikes = apply_per_step(self.pool, spikes)
        return self.classifier(spikes.mean((-2, -1)))


def _initialise(module: nn.Module) -> None:
    """Weights as in the code of Kim et al. 2022, on which a global ranking depends.

    Convolutions: normal, deviation sqrt(2 / (outputs * 9)); the linear layer: normal, deviation
    0.01; biases 0.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    else:
        return
    assert module.bias is not None
    nn.init.zeros_(module.bias)


def snn_vgg_16(
    *,
    in_channels: int = 3,
    size: int = 32,  # noqa: ARG001  (larger images are averaged before the linear layer)
    classes: int = 10,
    time_steps: int = 5,
    neuron: NeuronOptions = None,
) -> VGG16:
    """Build the SNN-VGG-16 of Kim et al. 2022, arXiv 2207.01382."""
    dynamics = Dynamics.from_options(neuron)
    encoder = Encoder(in_channels, STEM, dynamics, time_steps=time_steps, bias=True)
    return VGG16(encoder, classes)


CHANNELS, HIDDEN, VOTERS = 256, 2048, 10


class SixConvTwoFC(nn.Module):
    """Two stages of three spiking convolutions, two spiking linear layers, ten voters a class.

    The vote is the mean spike of a class's voters, in [0, 1]. Logits (T, N, classes).
    """

    def __init__(self, encoder: Encoder, side: int, classes: int) -> None:
        super().__init__()
        dynamics = encoder.neuron.dynamics
        self.encoder = encoder
        self.blocks = nn.ModuleList(SpikingConv(CHANNELS, CHANNELS, dynamics) for _ in range(5))
        self.pool = nn.MaxPool2d(2)
        self.hidden = SpikingLinear(CHANNELS * side * side, HIDDEN, dynamics)
        self.voters = SpikingLinear(HIDDEN, classes * VOTERS, dynamics)

    def forward(self, x: Tensor) -> Tensor:
        """Votes per time step from images (N, C, H, W) or events (T, N, C, H, W)."""
        spikes = self.encoder(x)
        for index, block in enumerate(self.blocks):
            spikes = block(spikes)
            if index in (1, 4):  # after the third and the sixth convolution
                spikes = apply_per_step(self.pool, spikes)
        votes = self.voters(self.hidden(spikes.flatten(2)))
        return votes.unflatten(2, (-1, VOTERS)).mean(3)


def six_conv_two_fc(
    *,
    in_channels: int = 3,
    size: int = 32,
    classes: int = 10,
    time_steps: int = 8,
    neuron: NeuronOptions = None,
) -> SixConvTwoFC:
    """Build the CIFAR-10 network of Fang et al. 2021, arXiv 2007.05785, with LIF neurons.

    STDS, Grad R and UPR report on the same layers.
    """
    if size < 4:
        raise InputError(f"{size} pixels are too few, at least 4", field="size")
    encoder = Encoder(in_channels, CHANNELS, Dynamics.from_options(neuron), time_steps=time_steps)
    return SixConvTwoFC(encoder, size // 4, classes)


RESNET_STAGES = ((128, 3), (256, 3), (512, 2))  # (channels, blocks)


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
        for (outputs, count), stride in zip(RESNET_STAGES, strides, strict=True):
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


class RecurrentLayer(nn.Module):
    """LIF neurons whose spikes come back to them a step later, by weights of their own.

    u[t] = h[t-1] + W x[t] + b + V s[t-1]; the rest as `Dynamics` says.
    """

    def __init__(self, inputs: int, outputs: int, dynamics: Dynamics) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.recurrent = nn.Linear(outputs, outputs, bias=False)
        self.dynamics = dynamics

    def forward(self, x: Tensor) -> Tensor:
        """(T, N, inputs) to spikes (T, N, outputs)."""
        current = self.linear(x)
        spikes = torch.zeros_like(current[0])
        carried = torch.full_like(spikes, self.dynamics.v_rest)
        steps = []
        for step in current:
            u = carried + self.dynamics.gain * (step + self.recurrent(spikes))
            spikes = spike(u, self.dynamics)
            carried = leak(u, spikes, self.dynamics)
            steps.append(spikes)
        return torch.stack(steps)


class RecurrentSNN(nn.Module):
    """Recurrent layers and a linear one. Logits (T, N, classes)."""

    def __init__(self, widths: list[int], classes: int, dynamics: Dynamics) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RecurrentLayer(a, b, dynamics) for a, b in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per time step from events (T, N, in_channels)."""
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x)


def recurrent_snn(
    *,
    in_channels: int = 700,
    classes: int = 20,
    width: int = 128,
    depth: int = 1,
    neuron: NeuronOptions = None,
) -> RecurrentSNN:
    """Build `recurrent-snn`: `depth` recurrent layers of `width` neurons, for spikes of a cochlea.

    The shape of Cramer et al. 2020, arXiv 1910.07407, for SHD and SSC.
    """
    if width < 1 or depth < 1:
        raise InputError("must be at least 1", field="width" if width < 1 else "depth")
    widths = [in_channels, *[width] * depth]
    return RecurrentSNN(widths, classes, Dynamics.from_options(neuron))
