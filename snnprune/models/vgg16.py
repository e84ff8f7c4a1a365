"""VGG-16 with one linear layer after the convolutions."""

from torch import Tensor, nn

from snnprune.models.blocks import Encoder, NeuronOptions, SpikingConv, apply_per_step
from snnprune.models.lif import Dynamics

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
