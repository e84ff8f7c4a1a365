"""Six convolutions, two linear layers and a vote."""

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
