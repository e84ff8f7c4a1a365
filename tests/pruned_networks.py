"""Small networks of several libraries that are pruned and mended, and what enters their layers."""

import warnings
from collections.abc import Iterator

import snntorch
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.models.lif import LIF, Dynamics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports
    import sinabs.layers
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import layer, neuron

STEPS, CLASSES, BETA = 3, 4, 0.5
PICTURES = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2


def lif() -> LIF:
    return LIF(Dynamics(beta=BETA, threshold=0.4))


class Convolved(nn.Module):
    """(T N) pictures at once; strided, grouped, with and without BatchNorm and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
        self.conv3, self.fc = nn.Conv1d(6, 3, 2), nn.Linear(3 * 8, CLASSES)
        self.lif1, self.lif2, self.lif3 = lif(), lif(), lif()

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif1(self.norm1(self.conv1(x)).expand(STEPS, -1, -1, -1, -1))
        z = self.lif2(self.conv2(z.flatten(0, 1)).unflatten(0, (STEPS, -1)))
        z = self.lif3(self.conv3(z.flatten(0, 1).flatten(2)).unflatten(0, (STEPS, -1)))
        return self.fc(z.flatten(2))


class Jelly(nn.Module):
    """SpikingJelly, all steps at once or step by step."""

    def __init__(self, step_mode: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = layer.Conv2d(2, 4, 3, bias=False), layer.BatchNorm2d(4)
        self.lif1 = neuron.LIFNode(v_threshold=0.3, detach_reset=True)
        self.conv2 = layer.Conv2d(4, 4, 3, bias=False)
        self.lif2 = neuron.IFNode(v_threshold=0.3)
        self.flatten, self.fc = layer.Flatten(), layer.Linear(4 * 16, CLASSES)
        self.step_mode = step_mode
        jelly.set_step_mode(self, step_mode)

    def at_once(self, x: Tensor) -> Tensor:
        z = self.lif2(self.conv2(self.lif1(self.norm1(self.conv1(x)))))
        return self.fc(self.flatten(z))

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "m":
            return self.at_once(x.repeat(STEPS, 1, 1, 1, 1))
        return torch.stack([self.at_once(x) for _ in range(STEPS)])


class Stepwise(nn.Module):
    """snnTorch, step by step, without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1 = nn.Conv2d(2, 4, 3), nn.Linear(4 * 36, 8)
        self.fc2 = nn.Linear(8, CLASSES)
        self.lif1 = snntorch.Leaky(beta=BETA, threshold=0.3)
        self.lif2 = snntorch.Leaky(beta=BETA, threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        logits = []
        for _ in range(STEPS):
            spikes, mem1 = self.lif1(self.conv(x), mem1)
            spikes, mem2 = self.lif2(self.fc1(spikes.flatten(1)), mem2)
            logits.append(self.fc2(spikes))
        return torch.stack(logits)


class Folded(nn.Module):
    """sinabs, (N T, ...): the steps of a sample beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(128, 6), nn.Linear(6, 5)
        self.fc3 = nn.Linear(5, CLASSES)
        self.lif1 = sinabs.layers.IAFSqueeze(num_timesteps=STEPS, spike_threshold=0.2)
        self.lif2 = sinabs.layers.IAFSqueeze(num_timesteps=STEPS, spike_threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif1(self.fc1(x.flatten(1).repeat_interleave(STEPS, 0)))
        z = self.fc3(self.lif2(self.fc2(z)))
        return z.unflatten(0, (-1, STEPS)).transpose(0, 1)


class Linears(nn.Module):
    """Linear layers alone, one of them without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(128, 10), nn.Linear(10, CLASSES, bias=False)
        self.lif1 = lif()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.lif1(self.fc1(x.flatten(1)).expand(STEPS, -1, -1)))


class Tied(nn.Module):
    """One conv is used twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shared, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 64, CLASSES)
        self.lif1, self.lif2, self.lif3 = lif(), lif(), lif()

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif1(self.norm1(self.conv1(x)).expand(STEPS, -1, -1, -1, -1))
        for fire in (self.lif2, self.lif3):
            z = fire(self.shared(z.flatten(0, 1)).unflatten(0, (STEPS, -1)))
        return self.fc(z.flatten(2))


NETWORKS = {
    "convolved": Convolved,
    "SpikingJelly at once": lambda: Jelly("m"),
    "SpikingJelly stepwise": lambda: Jelly("s"),
    "snnTorch": Stepwise,
    "sinabs": Folded,
    "linears": Linears,
    "tied": Tied,
}


def made(name: str) -> Network:
    """The network of that name, the same at every call, with BatchNorm that does something."""
    torch.manual_seed(4)
    module = NETWORKS[name]()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.bias, 0.0, 0.5)
            child.get_buffer("running_mean").uniform_(-0.2, 0.2)
            child.get_buffer("running_var").uniform_(0.1, 0.5)
    return trace(module.eval(), PICTURES[:1])


def rested(module: nn.Module) -> None:
    """Put the neurons of the libraries at rest."""
    jelly.reset_net(module)
    for child in module.modules():
        if isinstance(child, sinabs.layers.StatefulLayer):
            child.reset_states()


def batches(size: int = 4) -> Iterator[tuple[Tensor, None]]:
    """The last one is smaller."""
    for x in PICTURES.split(size):
        yield x, None


def entering(module: nn.Module, name: str, x: Tensor = PICTURES) -> list[Tensor]:
    """What enters the submodule `name` at each call of a pass from rest, seen by a plain hook."""
    seen: list[Tensor] = []
    rested(module)
    hook = module.get_submodule(name).register_forward_pre_hook(
        lambda _, given: seen.append(given[0].clone())
    )
    with torch.no_grad():
        module(x)
    hook.remove()
    rested(module)
    return seen
