"""The leaky integrate-and-fire neuron of Eq. 2-4, over all time steps at once."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from snnprune.models.lif.choice import choose_path, widen
from snnprune.models.lif.plain import SURROGATES, Dynamics, SurrogateName


def fire(current: Tensor, dynamics: Dynamics) -> Tensor:
    """Spikes (T, ...) float32 of neurons driven by `current` (T, ...) float32; differentiable."""
    return choose_path(current, dynamics).fire(current, dynamics)


def fire_and_keep_distance(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and u - threshold before reset, both (T, ...) float32; no gradient."""
    return choose_path(current, dynamics).fire_and_keep_distance(current, dynamics)


class LIF(nn.Module):
    """Spikes (T, N, ...) of LIF neurons, 0.0 or 1.0, from their input current (T, N, ...).

    The membrane potential is kept in float32 whatever the input's type. The neurons start at rest
    in every call: no state outlives it, so nothing has to be reset.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.on_distance: Callable[[Tensor], None] | None = None
        """Called with u - threshold (T, N, ...) before reset while `graph.libraries` records."""

    def forward(self, current: Tensor) -> Tensor:
        """Spikes in the type of `current`."""
        if self.on_distance is None:
            return fire(widen(current), self.dynamics).to(current.dtype)
        with torch.no_grad():
            spikes, distance = fire_and_keep_distance(current.float(), self.dynamics)
        self.on_distance(distance)
        return spikes.to(current.dtype)

    def extra_repr(self) -> str:
        """The constants that differ from the default."""
        usual = asdict(Dynamics())
        return ", ".join(f"{k}={v}" for k, v in asdict(self.dynamics).items() if v != usual[k])


__all__ = ["LIF", "SURROGATES", "Dynamics", "SurrogateName", "fire", "fire_and_keep_distance"]
