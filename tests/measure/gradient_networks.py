"""Small networks of several libraries, all with logits per step, and their losses written out."""

import warnings
from collections.abc import Iterator

import snntorch
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.graph.forward import Batch
from snnprune.models.lif import LIF, Dynamics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports
    import sinabs.layers
    from norse.torch.module import lif as norse
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

STEPS, CLASSES = 3, 4
PICTURES = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2
LABELS = torch.tensor([0, 3, 1, 1, 2])


def lif() -> LIF:
    return LIF(Dynamics(beta=0.5, threshold=0.4))


class Own(nn.Module):
    """Our neuron, time first: (T N) pictures at once; strided, grouped, with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.lif1 = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), lif()
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding="valid", groups=2)
        self.lif2 = lif()
        self.fc = nn.Linear(6 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm1(self.conv1(x)).expand(STEPS, -1, -1, -1, -1)
        z = self.conv2(self.lif1(z).flatten(0, 1)).unflatten(0, (STEPS, -1))
        return self.fc(self.lif2(z).flatten(2))


class SamplesFirst(nn.Module):
    """Pictures lie as (N T): the steps of a sample beside each other, and in-place arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 4, 3, stride=2), lif()
        self.conv2, self.lif2 = nn.Conv2d(4, 4, 3), lif()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = x.unsqueeze(1).repeat(1, STEPS, 1, 1, 1)
        for conv, fire in ((self.conv1, self.lif1), (self.conv2, self.lif2)):
            z = conv(z.flatten(0, 1))
            z *= 2.0
            z = fire(z.unflatten(0, (-1, STEPS)).transpose(0, 1)).transpose(0, 1)
        return self.fc(z.flatten(2)).transpose(0, 1)


class Jelly(nn.Module):
    """SpikingJelly, all steps at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = layer.Conv2d(2, 4, 3, bias=False), layer.BatchNorm2d(4)
        self.lif1 = neuron.LIFNode(v_threshold=0.3, detach_reset=True)
        self.flatten, self.fc = layer.Flatten(), layer.Linear(4 * 36, CLASSES, bias=False)
        jelly.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif1(self.norm1(self.conv1(x.repeat(STEPS, 1, 1, 1, 1))))
        return self.fc(self.flatten(z))


class Handed(nn.Module):
    """snnTorch, step by step, states handed round."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4 * 36, CLASSES)
        self.lif1 = snntorch.Leaky(beta=0.8, threshold=0.3)
        self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(self.conv(x), mem1)
            spk2, mem2 = self.lif2(self.fc(spk1.flatten(1)), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(membranes), torch.stack(spikes)


class Sinabs(nn.Module):
    """sinabs, (N, T, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.iaf = nn.Linear(128, 6), sinabs.layers.IAF(spike_threshold=0.3)
        self.fc2 = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.iaf(self.fc1(x.flatten(1).unsqueeze(1).repeat(1, STEPS, 1)))
        return self.fc2(z).transpose(0, 1)


class Norse(nn.Module):
    """norse, (T, N, ...), state returned beside the spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(128, 6), norse.LIF(), nn.Linear(6, CLASSES)
        nn.init.constant_(self.fc1.bias, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = self.lif(self.fc1(x.flatten(1)).repeat(8, 1, 1))
        return self.fc2(spikes)


NETWORKS: dict[str, type[nn.Module]] = {
    "own": Own,
    "samples first": SamplesFirst,
    "SpikingJelly": Jelly,
    "snnTorch": Handed,
    "sinabs": Sinabs,
    "norse": Norse,
}


def made(name: str) -> nn.Module:
    """The network of that name, the same at every call, with BatchNorm that does something."""
    torch.manual_seed(4)
    module = NETWORKS[name]()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, -1.0, 1.5)
            nn.init.uniform_(child.bias, 0.0, 0.5)
            child.get_buffer("running_var").uniform_(0.1, 0.5)
    return module.eval()


def loss(logits: Tensor, label: Tensor) -> Tensor:
    """The mean over time of the cross-entropy of one sample, (T, 1, classes), written out."""
    right = logits[:, 0, int(label)]
    return (logits.logsumexp(2)[:, 0] - right).mean()


def gradients_by_sample(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """dL_n/dw of every parameter, each sample alone in its batch."""
    for x, y in zip(PICTURES.split(1), LABELS, strict=True):
        jelly.reset_net(module)
        for child in module.modules():
            if isinstance(child, sinabs.layers.StatefulLayer):
                child.reset_states()
        named = {key: p for key, p in module.named_parameters() if p.requires_grad}
        output = module(x)
        logits = output[0] if isinstance(output, tuple) else output
        found = torch.autograd.grad(loss(logits, y), list(named.values()), allow_unused=True)
        yield {
            key: torch.zeros_like(value) if slope is None else slope.double()
            for (key, value), slope in zip(named.items(), found, strict=True)
        }
    jelly.reset_net(module)


def batches(size: int = 2, *, labelled: bool = True) -> list[Batch]:
    labels = LABELS.split(size) if labelled else [None] * -(-len(LABELS) // size)
    return list(zip(PICTURES.split(size), labels, strict=True))


class Smooth(nn.Module):
    """Spikes first, then layers that can be differentiated as often as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.fc1, self.fc2 = lif(), nn.Linear(128, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(x.flatten(1).expand(STEPS, -1, -1))
        return self.fc2(functional.softplus(self.fc1(spikes)))
