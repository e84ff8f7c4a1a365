"""A small plain network, for one machine and a coffee."""

from itertools import pairwise

from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.models.blocks import Encoder, NeuronOptions, SpikingConv, apply_per_step
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
