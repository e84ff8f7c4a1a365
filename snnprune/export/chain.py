"""Chains: layers, pools and neurons, in the order in which data meets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.errors import InputError
from snnprune.export import ChainCheck

Pair = tuple[int, int]
Reset = Literal["to", "by", "skip"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A layer with its BatchNorm in it: y = weight * x + bias."""

    key: str
    weight: Tensor
    """(out, in) of a linear layer, (out, in / groups, height, width) of a convolution; float32."""
    bias: Tensor
    """(out,) float32."""
    factor: Tensor
    """(out,) float64: what BatchNorm multiplies each row by; 1 where there is none."""
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def is_linear(self) -> bool:
        """Whether it is no convolution."""
        return self.weight.dim() == 2

    def apply(self, x: Tensor) -> Tensor:
        """Currents (N, out, ...) of inputs (N, ...); a linear layer flattens them."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if self.is_linear:
            return functional.linear(x.flatten(1), weight, bias)
        return functional.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The largest, the mean or the sum of each window; what it is padded with counts in a mean."""

    how: Literal["max", "avg", "sum"]
    size: Pair
    stride: Pair
    padding: Pair

    def apply(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        if self.how == "max":
            return functional.max_pool2d(x, self.size, self.stride, self.padding)
        divisor = 1 if self.how == "sum" else None
        return functional.avg_pool2d(
            x, self.size, self.stride, self.padding, divisor_override=divisor
        )


@dataclass(frozen=True, kw_only=True)
class Spiking:
    """Neurons; potentials are counted from rest, time in steps.

    u[t] = h[t-1] + gain x[t], s[t] = 1 where u[t] >= threshold (> where not `inclusive`), and h
    after a spike is `amount` (reset "to"), beta u - s amount ("by"), or u[t+1] is `amount` whatever
    enters ("skip"); else h = beta u. `several`: s = floor(u / threshold) spikes at once.
    """

    name: str
    beta: float
    gain: float
    threshold: float
    inclusive: bool
    reset: Reset
    amount: float
    several: bool = False

    def fire(self, u: Tensor) -> Tensor:
        """The number of spikes, in the type of `u`."""
        above = u >= self.threshold if self.inclusive else u > self.threshold
        return (u / self.threshold).floor() * above if self.several else above.to(u.dtype)

    def carry(self, u: Tensor, spikes: Tensor) -> Tensor:
        """What is left for the next step, before its input."""
        left = self.beta * u
        if self.reset == "by":
            return left - self.amount * spikes
        return torch.where(spikes > 0, torch.full_like(u, self.amount), left)

    def apply(self, x: Tensor) -> Tensor:
        """Spikes (T, ...) of currents (T, ...), from rest."""
        carried, held, steps = torch.zeros_like(x[0]), torch.zeros_like(x[0], dtype=torch.bool), []
        for now in x:
            u = torch.where(held, carried, carried + self.gain * now)
            steps.append(self.fire(u))
            carried = self.carry(u, steps[-1])
            held = (steps[-1] > 0) if self.reset == "skip" else held
        return torch.stack(steps)

    def follow(self, x: Tensor, u: Tensor) -> Tensor:
        """The membranes (T, ...) that follow from currents and, step by step, from those of `u`."""
        spikes = self.fire(u[:-1])
        carried = self.carry(u[:-1], spikes)
        driven = carried + self.gain * x[1:]
        if self.reset == "skip":
            driven = torch.where(spikes > 0, carried, driven)
        return torch.cat([self.gain * x[:1], driven])


Stage = Weights | Pool | Spiking


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages in the order in which data meets them, first and last of all a layer or neurons."""

    stages: tuple[Stage, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of one sample: what enters the first stage, and what each puts out."""

    def run(self, x: Tensor) -> dict[int, Tensor]:
        """What each stage puts out, (T, N, ...), for what enters the first, from rest."""
        found = {}
        for index, stage in enumerate(self.stages):
            found[index] = x = apply_stage(stage, x)
        return found

    @property
    def layers(self) -> tuple[Weights, ...]:
        """Those that have weights."""
        return tuple(stage for stage in self.stages if isinstance(stage, Weights))

    @property
    def neurons(self) -> tuple[Spiking, ...]:
        """Those that spike."""
        return tuple(stage for stage in self.stages if isinstance(stage, Spiking))


def apply_stage(stage: Stage, x: Tensor) -> Tensor:
    """What a stage makes of (T, N, ...)."""
    if isinstance(stage, Spiking):
        return stage.apply(x)
    return stage.apply(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@dataclass(frozen=True, kw_only=True)
class ExtractedChain:
    """A chain, and the pass that it was held against."""

    chain: Chain
    check: ChainCheck
    inputs: Tensor
    """(T, N, ...), what enters the first layer."""
    spikes: tuple[Tensor, ...]
    """(T, N, ...) of each of the network's neurons."""


class ChainError(InputError):
    """The network is no chain, or one of parts that are not known."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        """`where` is a layer, a neuron or a module."""
        super().__init__(
            f"{where}: {message}" if where else message,
            hint="only a chain of layers, BatchNorm, pools and integrate-and-fire neurons can be "
            "written so",
        )
