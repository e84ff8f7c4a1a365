"""Networks of SpikingJelly's own zoo, built alike under 0.0.0.0.14 and 2.x, and their links."""

import itertools
from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import (
    parametric_lif_net,
    sew_resnet,
    spiking_resnet,
    spiking_vgg,
)
from torch import Tensor, nn
from zoo import Links, images, lively

STEPS = 3
LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def multi_step(module: nn.Module) -> nn.Module:
    functional.set_step_mode(module, "m")
    return lively(module)


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
    return multi_step(made)


def plif() -> nn.Module:
    made = parametric_lif_net.MNISTNet(
        channels=8, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0, **LIF
    )
    return multi_step(made)


ZOO: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "spiking_resnet18": (resnet18, images(2, 2, 3, 32, 32)),
    "sew_resnet18": (sew18, images(2, 2, 3, 32, 32)),
    "spiking_vgg11_bn": (vgg11, images(2, 1, 3, 32, 32)),
    "PLIF net": (plif, images(STEPS, 2, 1, 28, 28)),
}


def residual_links(*, spiking: bool) -> Links:
    """All links of a ResNet-18, read off its code.

    A spiking ResNet adds currents in front of a neuron, a SEW ResNet spikes behind it.
    """
    sums = ["add"] if spiking else []
    found: Links = {"conv1": (["sn1"], ["bn1"], [], True)}
    for stage, block in itertools.product(range(1, 5), range(2)):
        at = f"layer{stage}.{block}"
        found[f"{at}.conv1"] = ([f"{at}.sn1"], [f"{at}.bn1"], [], False)
        found[f"{at}.conv2"] = ([f"{at}.sn2"], [f"{at}.bn2"], sums, False)
        if stage > 1 and block == 0:
            into = f"{at}.sn2" if spiking else f"{at}.downsample_sn"
            found[f"{at}.downsample.0"] = ([into], [f"{at}.downsample.1"], sums, False)
    return {**found, "fc": ([], [], [], False)}


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


def made_of_zoo(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, x = ZOO[name]
    return build(), x
