"""A membrane at the moment at which somebody's code compares it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.network.origins import Origin
from snnprune.network.sites import Met


STRAIGHT = 1e-4  # how far rounding takes (spike - surrogate) + surrogate from the spike
STIRRED = 0.25  # how far a change of the membrane between the two does


def unscaled(distance: Tensor, scalings: Iterable[Origin]) -> Tensor:
    """A distance to the threshold in units of the membrane that its operand is a multiple of."""
    for made in scalings:
        if made.gain is None:
            continue
        factor = torch.as_tensor(made.gain.value, device=distance.device).detach().abs()
        if factor.numel() == 1 or factor.dim() == distance.dim():
            distance = distance * factor if made.gain.divides else distance / factor
    return distance


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """A membrane at the moment at which it is compared."""

    met: Met
    distance: Tensor
    """u - u_th; taken before the comparison, which may work in place."""
    turned: bool
    """Whether it is asked where there is no spike."""

    def told(self, result: Tensor) -> tuple[Tensor, Tensor]:
        """u - u_th and the spikes, in the shape of the layer's output where the size is the same.

        A neuron that mixes time steps by a matrix flattens everything else.
        """
        distance = self.distance
        spikes = (result == 0 if self.turned else result > 0).to(distance.dtype)
        shape = self.met.shape
        if shape is None or not is_reshaped(distance.shape, shape):
            return distance, spikes
        return distance.reshape(shape), spikes.reshape(shape)


def is_reshaped(compared: Sequence[int], current: Sequence[int]) -> bool:
    """Whether what is compared is what a layer gives, in another shape."""
    return math.prod(compared) == math.prod(current) and _long(compared) != _long(current)


def _long(shape: Iterable[int]) -> list[int]:
    """Its dimensions but those of one."""
    return [length for length in shape if length != 1]


def is_of(result: Tensor, spikes: Tensor, *, within: float = STRAIGHT) -> bool:
    """Whether a tensor is those spikes to the eye, though a surrogate was added and taken off."""
    if result.shape != spikes.shape or not result.is_floating_point():
        return False
    same = (result - spikes).abs() <= within
    return bool(same.all()) and bool(spikes.any())
