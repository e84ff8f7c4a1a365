"""Small networks of several libraries, and their spikes as the libraries lay them out."""

import warnings
from collections.abc import Callable

import snntorch
import torch
from torch import Tensor, nn

from snnprune.models import ModelSpec, build_model

with warnings.catch_warnings():
    # of spikingjelly 0.0.0.0.14, where that lies in front
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning):
        warnings.simplefilter("ignore", category)
    from spikingjelly.activation_based import functional, layer, neuron

STEPS = 3


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class MultiStep(nn.Module):
    """SpikingJelly, all time steps at once, (T, N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = layer.Conv2d(1, 4, 3, padding=1), layer.BatchNorm2d(4)
        self.spikes = neuron.LIFNode(tau=1.5, v_threshold=0.4)
        self.fc = layer.Linear(4 * 64, 10)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.spikes(self.norm(self.conv(x.expand(STEPS, *x.shape)))).flatten(2))


class StepByStep(nn.Module):
    """SpikingJelly in a time loop of the user's own, (N, C, H, W) at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spikes = nn.Conv2d(1, 4, 3, padding=1), neuron.IFNode(v_threshold=0.4)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        steps = [self.spikes(self.conv(x * (1 + t))) for t in range(STEPS)]
        return torch.stack([self.fc(step.flatten(1)) for step in steps])


class SnnTorch(nn.Module):
    """snnTorch: steps in a loop, state handed round."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spikes = nn.Conv2d(1, 4, 3, padding=1), snntorch.Leaky(beta=0.8)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        membrane, steps = self.spikes.init_leaky(), []
        for _ in range(STEPS):
            spikes, membrane = self.spikes(self.conv(2 * x), membrane)
            steps.append(self.fc(spikes.flatten(1)))
        return torch.stack(steps)


def built_in() -> nn.Module:
    small = {"width": 4, "depth": 2, "size": 8, "in_channels": 1, "time_steps": STEPS}
    return build_model(ModelSpec(name="conv-snn", args=small))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "multi-step": MultiStep,
    "step by step": StepByStep,
    "snnTorch": SnnTorch,
    "built in": built_in,
}


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network whose neurons fire."""
    torch.manual_seed(seed)
    module = build()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.bias, 0.2, 1.0)
    return module.eval()


def changed(module: nn.Module, seed: int = 7) -> dict[str, Tensor]:
    """The network's tensors with a third of the weights 0."""
    drawn = torch.Generator().manual_seed(seed)
    return {
        key: value * (torch.rand(value.shape, generator=drawn) > 1 / 3)
        if value.dim() > 1
        else value
        for key, value in module.state_dict().items()
    }


@torch.no_grad()
def spikes_of(module: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The spikes of each neuron on one batch, (T, N, ...), through hooks of our own."""
    seen: dict[str, list[Tensor]] = {}
    before = {key: value.clone() for key, value in module.state_dict().items()}
    names = ("LIFNode", "IFNode", "Leaky", "LIF")
    neurons = {n: m for n, m in module.named_modules() if type(m).__name__ in names}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            made = output[0] if isinstance(output, tuple) else output
            assert isinstance(made, Tensor)
            seen.setdefault(name, []).append(made.clone())

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in neurons.items()]
    module.load_state_dict(tensors)
    module(x)
    for part in neurons.values():
        if isinstance(part, neuron.BaseNode):
            part.reset()
    module.load_state_dict(before)
    for handle in handles:
        handle.remove()
    return {
        name: found[0] if len(found) == 1 else torch.stack(found) for name, found in seen.items()
    }
