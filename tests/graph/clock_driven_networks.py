"""Networks of SpikingJelly up to 0.0.0.0.12, and their links."""

import torch
from behaviour import Networks
from residual import residual_links
from spikingjelly.clock_driven import layer, neuron, surrogate
from spikingjelly.clock_driven.model import parametric_lif_net, sew_resnet, spiking_resnet
from torch import Tensor, nn
from zoo import Links, images

STEPS = 3
LIF = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def resnet18() -> nn.Module:
    made: nn.Module = spiking_resnet.multi_step_spiking_resnet18(
        T=2, multi_step_neuron=neuron.MultiStepLIFNode, num_classes=10, **LIF
    )
    return made


def sew18() -> nn.Module:
    made: nn.Module = sew_resnet.multi_step_sew_resnet18(
        T=2, cnf="ADD", multi_step_neuron=neuron.MultiStepIFNode, num_classes=10, **LIF
    )
    return made


class Plif(parametric_lif_net.MultiStepMNISTNet):  # type: ignore[misc]  # no types
    """The library's own network, which asks for the number of steps at each call."""

    def __init__(self) -> None:
        super().__init__(8, neuron.MultiStepParametricLIFNode, **LIF)

    def forward(self, x: Tensor) -> Tensor:
        put_out: Tensor = super().forward(x, STEPS)
        return put_out


class StepByStep(nn.Module):
    """Single-step neurons in a loop of the user's own; soft reset."""

    def __init__(self) -> None:
        super().__init__()
        soft = {"tau": 3.0, "v_reset": None, "decay_input": False, **LIF}
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.spikes1 = neuron.LIFNode(**soft)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.spikes2 = neuron.LIFNode(**soft)
        self.fc = nn.Linear(5 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(STEPS):
            z = self.spikes1(self.bn1(self.conv1(x)))
            z = self.spikes2(self.bn2(self.conv2(z)))
            steps.append(self.fc(z.flatten(1)))
        return torch.stack(steps)


def containers() -> nn.Module:
    """What turns single steps into several and back; BatchNorm that knows the threshold."""
    return nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)),
        layer.MultiStepContainer(neuron.ParametricLIFNode(**LIF)),
        layer.SeqToANNContainer(nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, bias=False)),
        layer.MultiStepThresholdDependentBatchNorm2d(1.0, 1.0, 5),
        neuron.MultiStepEIFNode(**LIF),
        layer.MultiStepDropout(0.5),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(5 * 16, 6)),
        neuron.MultiStepIFNode(v_threshold=0.2, **LIF),
        layer.SeqToANNContainer(nn.Linear(6, 10)),
    )


NETWORKS: Networks = {
    "spiking_resnet18": (resnet18, images(2, 3, 32, 32)),
    "sew_resnet18": (sew18, images(2, 3, 32, 32)),
    "PLIF net": (Plif, images(2, 1, 28, 28)),
    "single step": (StepByStep, images(2, 3, 8, 8)),
    "containers": (containers, images(STEPS, 2, 1, 14, 14)),
}

LINKS: dict[str, Links] = {
    "spiking_resnet18": residual_links(spiking=True),
    "sew_resnet18": residual_links(spiking=False),
    "PLIF net": {
        "conv1": (["sn1"], ["bn1"], [], True),
        "conv2": (["sn2"], ["bn2"], [], False),
        "fc3": (["sn3"], [], [], False),
        "fc4": (["sn4"], [], [], False),
    },
    "single step": {
        "conv1": (["spikes1"], ["bn1"], [], True),
        "conv2": (["spikes2"], ["bn2"], [], False),
        "fc": ([], [], [], False),
    },
    "containers": {
        "0.0": (["1.0"], ["0.1"], [], True),
        "2.1": (["4"], ["3"], [], False),
        "6.1": (["7"], [], [], False),
        "8.0": ([], [], [], False),
    },
}
