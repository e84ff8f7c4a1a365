"""Networks without shortcuts: `conv-snn`, VGG-16 and the six convolutions of Fang et al."""

from itertools import pairwise

from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.models.blocks import (
    Encoder,
    NeuronOptions,
    SpikingConv,
    SpikingLinear,
    apply_per_step,
)
from snnprune.models.lif import Dynamics


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
STAGES = ((64,), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen spiking convolutions in five stages and a linear layer. Logits (T, N, classes)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        channels = encoder.conv.out_channels
        self.encoder = encoder
        self.stages = nn.ModuleList()
        for widths in STAGES:
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
