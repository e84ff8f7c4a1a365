"""The leaky integrate-and-fire neuron of Eq. 2-4, over all time steps at once."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.models.lif_kernel import fire, fire_and_keep_membrane
from snnprune.models.surrogate import SURROGATES, SurrogateName
from snnprune.spelling import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """The constants of a LIF neuron; potentials in units of the input current, time in steps.

    u[t] = h[t-1] + x[t]                      (`decay_input`: h[t-1] + (1 - beta) x[t])
    s[t] = 1 where u[t] >= threshold, else 0
    h[t] = s ? v_reset : v_rest + beta (u[t] - v_rest)           hard reset
    h[t] = v_rest + beta (u[t] - threshold s[t] - v_rest)        soft reset
    h[0] = v_rest

    Yao et al. 2023, arXiv 2305.12148, Eq. 2-4, is hard reset with v_rest = 0. SpikingJelly's
    LIFNode is beta = 1 - 1/tau with v_rest = v_reset (0 for its soft reset).
    """

    beta: float = 0.5
    threshold: float = 1.0
    reset: Literal["hard", "soft"] = "hard"
    v_reset: float = 0.0
    v_rest: float = 0.0
    decay_input: bool = False
    surrogate: SurrogateName = "atan"
    detach_reset: bool = True

    def __post_init__(self) -> None:
        """Refuse constants for which the neuron means nothing."""
        if not 0 <= self.beta <= 1:
            raise InputError(f"{self.beta} is outside [0, 1]", field="neuron.beta")
        for name in ("threshold", "v_reset", "v_rest"):
            if not math.isfinite(value := getattr(self, name)):
                raise InputError(f"{value} is not a finite number", field=f"neuron.{name}")
        if self.reset not in ("hard", "soft"):
            raise InputError(
                f"unknown reset {self.reset!r}", field="neuron.reset", hint="choose from hard, soft"
            )
        if self.reset == "hard" and self.v_reset >= self.threshold:
            raise InputError(
                f"{self.v_reset} is not below the threshold {self.threshold}",
                field="neuron.v_reset",
            )
        if self.surrogate not in SURROGATES:
            raise InputError(
                f"unknown surrogate {self.surrogate!r}",
                field="neuron.surrogate",
                hint=did_you_mean(self.surrogate, SURROGATES),
            )

    @classmethod
    def from_options(cls, options: dict[str, Any] | None) -> "Dynamics":
        """The dynamics that `{"beta": 0.25, ...}` of a recipe or a checkpoint asks for."""
        known = {field.name for field in fields(cls)}
        for name in options or {}:
            if name not in known:
                raise InputError(
                    "unknown setting", field=f"neuron.{name}", hint=did_you_mean(name, known)
                )
        return cls(**(options or {}))


class LIF(nn.Module):
    """Spikes (T, N, ...) of LIF neurons, 0.0 or 1.0, from their input current (T, N, ...).

    The membrane potential is kept in float32 whatever the input's type. The neurons start at rest
    in every call: no state outlives it, so nothing has to be reset.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.on_membrane: Callable[[Tensor], None] | None = None
        """Called with u (T, N, ...) before reset, while somebody records; see network.capture."""

    def forward(self, current: Tensor) -> Tensor:
        """Spikes in the type of `current`."""
        if self.on_membrane is None:
            return fire(current.float(), self.dynamics).to(current.dtype)
        with torch.no_grad():
            spikes, membrane = fire_and_keep_membrane(current.float(), self.dynamics)
        self.on_membrane(membrane)
        return spikes.to(current.dtype)

    def extra_repr(self) -> str:
        """The constants that differ from the default."""
        usual = asdict(Dynamics())
        return ", ".join(f"{k}={v}" for k, v in asdict(self.dynamics).items() if v != usual[k])
