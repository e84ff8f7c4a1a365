"""Networks of SpikingJelly, built alike under 0.0.0.0.14 and 2.x, and their links."""

import torch
from behaviour import Networks
from residual import residual_links
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import (
    parametric_lif_net,
    sew_resnet,
    spiking_resnet,
    spiking_vgg,
)
from torch import Tensor, nn
from zoo import Links, images

STEPS = 3
LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def multi_step(module: nn.Module) -> nn.Module:
    functional.set_step_mode(module, "m")
    return module


def resnet18() -> nn.Module:
    made = spiking_resnet.spiking_resnet18(
        pretrained=False, spiking_neuron=neuron.LIFNode, num_classes=10, **LIF
    )
    return multi_step(made)


def sew18() -> nn.Module:
    made = sew_resnet.sew_resnet18(
        pretrained=False, cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10, **LIF
    )
    return multi_step(made)


def vgg11() -> nn.Module:
    made = spiking_vgg.spiking_vgg11_bn(
        pretrained=False, spiking_neuron=neuron.LIFNode, num_classes=10, tau=1.5, **LIF
    )
    # 64 wide: with its own 4096 the tests wait for these layers most of the time
    made.classifier[0] = layer.Linear(512 * 49, 64)
    made.classifier[3] = layer.Linear(64, 64)
    made.classifier[6] = layer.Linear(64, 10)
    return multi_step(made)


def plif() -> nn.Module:
    made = parametric_lif_net.MNISTNet(
        channels=8, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0, **LIF
    )
    return multi_step(made)


class StepByStep(nn.Module):
    """Single-step mode in a loop of the user's own; soft reset."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = layer.Conv2d(3, 4, 3, padding=1), layer.BatchNorm2d(4)
        self.spikes1 = neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False, **LIF)
        self.conv2, self.bn2 = layer.Conv2d(4, 5, 3, padding=1), layer.BatchNorm2d(5)
        self.spikes2 = neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False, **LIF)
        self.fc = nn.Linear(5 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(STEPS):
            z = self.spikes1(self.bn1(self.conv1(x)))
            z = self.spikes2(self.bn2(self.conv2(z)))
            steps.append(self.fc(z.flatten(1)))
        return torch.stack(steps)


ZOO: Networks = {
    "spiking_resnet18": (resnet18, images(2, 2, 3, 32, 32)),
    "sew_resnet18": (sew18, images(2, 2, 3, 32, 32)),
    "spiking_vgg11_bn": (vgg11, images(2, 1, 3, 32, 32)),
    "PLIF net": (plif, images(STEPS, 2, 1, 28, 28)),
}
"""What SpikingJelly brings, in multi-step mode."""

OWN_LOOP: Networks = {"single step": (StepByStep, images(2, 3, 8, 8))}
OWN_LOOP_LINKS: dict[str, Links] = {
    "single step": {
        "conv1": (["spikes1"], ["bn1"], [], True),
        "conv2": (["spikes2"], ["bn2"], [], False),
        "fc": ([], [], [], False),
    },
}


ZOO_LINKS: dict[str, Links] = {
    "spiking_resnet18": residual_links(spiking=True),
    "sew_resnet18": residual_links(spiking=False),
    "spiking_vgg11_bn": {
        **{
            f"features.{at}": ([f"features.{at + 2}"], [f"features.{at + 1}"], [], at == 0)
            for at in (0, 4, 8, 11, 15, 18, 22, 25)
        },
        "classifier.0": (["classifier.1"], [], [], False),
        "classifier.3": (["classifier.4"], [], [], False),
        "classifier.6": ([], [], [], False),
    },
    "PLIF net": {
        "conv_fc.0": (["conv_fc.2"], ["conv_fc.1"], [], True),
        "conv_fc.4": (["conv_fc.6"], ["conv_fc.5"], [], False),
        "conv_fc.10": (["conv_fc.11"], [], [], False),
        "conv_fc.13": (["conv_fc.14"], [], [], False),
    },
}
