"""Networks as people write them without any library of neurons."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

DECAY, THRESHOLD, STEPS = 0.5, 0.6, 3


class Heaviside(torch.autograd.Function):
    """A rectangle as surrogate gradient, as most such code has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 0.5).float()


class LIFSpike(nn.Module):
    """Loops over time inside, (N, T, C, H, W); hard reset."""

    def forward(self, x: Tensor) -> Tensor:
        mem, spikes = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            mem = mem * DECAY + x[:, t]
            spike = Heaviside.apply(mem - THRESHOLD)
            mem = (1 - spike) * mem
            spikes.append(spike)
        return torch.stack(spikes, dim=1)


class BatchFirst(nn.Module):
    """Frames (N, T, 3, H, W); layers see (N T, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.lif1 = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            LIFSpike(),
        )
        self.conv2, self.bn2, self.lif2 = (
            nn.Conv2d(4, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            LIFSpike(),
        )
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(5 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        samples, steps = x.shape[:2]
        y = self.bn1(self.conv1(x.flatten(0, 1))).unflatten(0, (samples, steps))
        y = self.lif1(y)
        y = self.bn2(self.conv2(y.flatten(0, 1))).unflatten(0, (samples, steps))
        y = self.pool(self.lif2(y).flatten(0, 1)).flatten(1)
        return self.fc(y).unflatten(0, (samples, steps))


def mem_update(
    layer: Callable[[Tensor], Tensor], x: Tensor, mem: Tensor, spike: Tensor
) -> tuple[Tensor, Tensor]:
    """STBP's step: the neuron is a line of code."""
    mem = mem * DECAY * (1 - spike) + layer(x)
    return mem, Heaviside.apply(mem - THRESHOLD)


class Stbp(nn.Module):
    """Wu et al. 2018's style: no neuron module anywhere, states handed round."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.fc1, self.fc2 = nn.Linear(5 * 64, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        size = (len(x), 4, 8, 8), (len(x), 5, 8, 8), (len(x), 6), (len(x), 10)
        m1, m2, m3, m4 = (torch.zeros(s) for s in size)
        s1, s2, s3, s4 = (torch.zeros(s) for s in size)
        total = torch.zeros(len(x), 10)
        for _ in range(STEPS):
            m1, s1 = mem_update(self.conv1, x, m1, s1)
            m2, s2 = mem_update(lambda y: self.norm(self.conv2(y)), s1, m2, s2)
            m3, s3 = mem_update(self.fc1, s2.flatten(1), m3, s3)
            m4, s4 = mem_update(self.fc2, s3, m4, s4)
            total = total + s4
        return total / STEPS


def fire(distance: Tensor) -> Tensor:
    return (distance >= 0).to(distance)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated, and still in people's code
    scripted = torch.jit.script(fire)


class Scripted(nn.Module):
    """One step at a time, state in an attribute, TorchScript that fires, reset in the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.mem: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x) if self.mem is None else self.mem
        reset = (mem >= THRESHOLD).to(x)
        self.mem = DECAY * mem + x - reset * THRESHOLD
        return scripted(self.mem - THRESHOLD)


class InPlace(nn.Module):
    """One step at a time, state in a buffer that is changed in place."""

    mem: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mem", torch.zeros(1, 4, 8, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.mem) != len(x):
            self.mem = self.mem.new_zeros(x.shape)
        self.mem.mul_(DECAY).add_(x)
        spike = torch.heaviside(self.mem - THRESHOLD, torch.ones(()))
        self.mem.masked_fill_(self.mem.ge(THRESHOLD), 0.0)
        return spike


class Stepwise(nn.Module):
    """A user's own neurons, called step by step."""

    def __init__(self, neuron: type[nn.Module]) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), neuron()
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.fc(self.lif(self.bn(self.conv(x))).flatten(1)) for _ in range(STEPS)]


class Recurrent(nn.Module):
    """Linear layers forward and back; nothing comes back at the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back, self.out = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        mem, spike, outputs = torch.zeros(len(x), 8), None, []
        for _ in range(STEPS):
            current = self.forth(x.flatten(1))
            if spike is not None:
                current = current + self.back(spike)
            mem = DECAY * mem + current
            spike = (mem > THRESHOLD).float()
            mem = torch.where(mem > THRESHOLD, torch.zeros_like(mem), mem)
            outputs.append(self.out(spike))
        return torch.stack(outputs)


class PerStep(nn.Module):
    """A BatchNorm for each time step (Kim and Panda 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.bns1 = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(STEPS))
        self.bns2 = nn.ModuleList(nn.BatchNorm2d(5) for _ in range(STEPS))
        self.fc = nn.Linear(5 * 64, 10)

    def pairs(self, t: int) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.conv1, self.bns1[t]), (self.conv2, self.bns2[t])]

    def forward(self, x: Tensor) -> Tensor:
        m1 = s1 = torch.zeros(len(x), 4, 8, 8)
        m2 = s2 = torch.zeros(len(x), 5, 8, 8)
        outputs = []
        for t in range(STEPS):
            first, second = (nn.Sequential(*pair) for pair in self.pairs(t))
            m1, s1 = mem_update(first, x, m1, s1)
            m2, s2 = mem_update(second, s1, m2, s2)
            outputs.append(self.fc(s2.flatten(1)))
        return torch.stack(outputs)


class HandNorm(nn.BatchNorm2d):
    """Threshold-dependent BatchNorm written out, over (T, N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        per_channel = (1, 1, -1, 1, 1)
        y = (x - self.running_mean.view(per_channel)) / (
            self.running_var.view(per_channel) + self.eps
        ).sqrt()
        return 0.7 * y * self.weight.view(per_channel) + self.bias.view(per_channel)


class ByHand(nn.Module):
    """Time first, a normalisation that calls no batch_norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.norm, self.lif1, self.lif2 = norm, LIFSpike(), LIFSpike()
        self.fc = nn.Linear(5 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x).expand(STEPS, len(x), 4, 8, 8)
        y = self.lif1(y.transpose(0, 1)).transpose(0, 1)
        y = self.norm(self.conv2(y.flatten(0, 1)).unflatten(0, (STEPS, len(x))))
        y = self.lif2(y.transpose(0, 1)).transpose(0, 1)
        return self.fc(y.flatten(2))


class SumOfCurrents(nn.Module):
    """A residual path that carries currents, as in MS-ResNet: one layer drives two neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn0, self.bn1 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        m1 = s1 = m2 = s2 = torch.zeros(len(x), 4, 8, 8)
        outputs = []
        for _ in range(STEPS):
            trunk = self.bn0(self.stem(x))
            m1, s1 = mem_update(lambda y: y, trunk, m1, s1)
            trunk = trunk + self.bn1(self.conv(s1))
            m2, s2 = mem_update(lambda y: y, trunk, m2, s2)
            outputs.append(functional.adaptive_avg_pool2d(self.last(s2), 1).flatten(1))
        return torch.stack(outputs)
