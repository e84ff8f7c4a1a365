"""The random weights that a search never changes, and the scores that it begins with."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from snnprune.randomness import generator

WeightDraw = Literal["signed-constant", "kaiming-normal"]
"""Weights of one absolute value and a random sign, or normally distributed."""


def drawn_weight(
    shape: torch.Size, draw: WeightDraw, *, kept: float, seed: int, key: str
) -> Tensor:
    """A weight (out, in / groups, *kernel) in float32, the same on every device.

    Its standard deviation is that of He et al. 2015 (arXiv 1502.01852, fan-in, gain sqrt 2)
    over sqrt(kept), so that an input current varies as much as with all weights there.
    """
    normal = torch.randn(shape, generator=generator(seed, "search weights", key))
    deviation = math.sqrt(2 / (fan_in(shape) * kept))
    if draw == "signed-constant":
        return torch.full(shape, deviation).copysign(normal)
    return normal * deviation


def drawn_scores(shape: torch.Size, *, seed: int, key: str) -> Tensor:
    """Scores in float32, uniform within 1 / sqrt(fan-in): kaiming-uniform with a = sqrt 5."""
    scores = torch.empty(shape)
    source = generator(seed, "search scores", key)
    return nn.init.kaiming_uniform_(scores, a=math.sqrt(5), generator=source)


def fan_in(shape: torch.Size) -> int:
    """How many inputs an output of a weight (out, in / groups, *kernel) has."""
    return math.prod(shape[1:])
