"""Networks of SpikingJelly 2.x for the one-shot benchmark, small enough for two cores."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import BasicBlock, SEWResNet
from spikingjelly.activation_based.model.spikformer import Spikformer
from spikingjelly.activation_based.model.spiking_vgg import SpikingVGG
from torch import Tensor, nn

TIME_STEPS = 4
CFG = (16, "M", 32, "M", 64, 64, "M", 128, 128)  # a spiking_vgg11_bn of a quarter of the channels
NEURON = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


class Repeated(nn.Module):
    """A network over time steps that sees each picture (N, 1, H, W) at every step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        functional.set_step_mode(network, "m")
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (T, N, classes)."""
        found: Tensor = self.network(x.expand(TIME_STEPS, *x.shape))
        return found


class RowByRow(nn.Module):
    """A recurrent network that reads a picture (N, 1, H, W) row by row, H time steps."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = layer.SeqToANNContainer(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden)
        )
        self.first = neuron.LIFNode(tau=2.0, step_mode="m", **NEURON)
        self.recurrent = layer.LinearRecurrentContainer(
            neuron.LIFNode(tau=4.0, **NEURON), hidden, hidden, step_mode="m"
        )
        self.classifier = layer.SeqToANNContainer(nn.Linear(hidden, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (T, N, classes)."""
        rows = x.squeeze(1).movedim(1, 0)
        found: Tensor = self.classifier(self.recurrent(self.first(self.enter(rows))))
        return found


def sew_resnet() -> Repeated:
    """SEW-ResNet of four blocks, one a stage, whose spikes are added up."""
    network = SEWResNet(
        BasicBlock,
        [1, 1, 1, 1],
        num_classes=10,
        cnf="ADD",
        spiking_neuron=neuron.IFNode,
        **NEURON,
    )
    network.conv1 = layer.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return Repeated(network)


def spiking_vgg() -> Repeated:
    """VGG-11 with BatchNorm, a quarter of the channels and one linear layer."""
    network = SpikingVGG(
        list(CFG),
        batch_norm=True,
        norm_layer=layer.BatchNorm2d,
        num_classes=10,
        init_weights=False,
        spiking_neuron=neuron.LIFNode,
        **NEURON,
    )
    network.features[0] = layer.Conv2d(1, CFG[0], kernel_size=3, padding=1)
    network.avgpool = layer.AdaptiveAvgPool2d((1, 1))
    network.classifier = nn.Sequential(layer.Linear(int(CFG[-1]), 10))
    return Repeated(network)


def spikformer() -> nn.Module:
    """A spiking transformer of two blocks on 7 x 7 patches of four pixels."""
    return Spikformer(
        T=TIME_STEPS,
        in_channels=1,
        img_size_h=28,
        img_size_w=28,
        patch_size=4,
        num_classes=10,
        embed_dims=64,
        num_heads=4,
        mlp_ratio=2.0,
        depths=2,
    )


def row_by_row() -> RowByRow:
    """128 recurrent neurons behind 128 others."""
    return RowByRow(28, 128)


if __name__ == "__main__":
    for make in (sew_resnet, spiking_vgg, spikformer, row_by_row):
        made = make()
        out = made(torch.rand(2, 1, 28, 28))
        print(make.__name__, tuple(out.shape), sum(p.numel() for p in made.parameters()))
