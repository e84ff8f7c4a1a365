"""What a LIF neuron computes: its constants, Eq. 2-4, and the derivatives put for the spike's."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.errors.text import did_you_mean

SurrogateName = Literal["atan", "triangle", "sigmoid"]


def atan(x: Tensor, alpha: float = 2.0) -> Tensor:
    """alpha/2 / (1 + (pi/2 alpha x)^2); Fang et al. 2021, arXiv 2007.05785."""
    # as 1 / (2/alpha + pi^2/2 alpha x^2): two sweeps instead of five
    return torch.addcmul(x.new_tensor(2 / alpha), x, x, value=math.pi**2 / 2 * alpha).reciprocal_()


def triangle(x: Tensor, width: float = 1.0) -> Tensor:
    """max(0, width - |x|) / width^2; Bellec et al. 2018, arXiv 1803.09574."""
    return x.abs().neg_().add_(width).clamp_(min=0).mul_(1 / width**2)


def sigmoid(x: Tensor, alpha: float = 4.0) -> Tensor:
    """alpha sigma(alpha x) (1 - sigma(alpha x)); Neftci et al. 2019, arXiv 1901.09948."""
    rising = (x * alpha).sigmoid_()
    return (1 - rising).mul_(rising).mul_(alpha)


SURROGATES: dict[SurrogateName, Callable[[Tensor], Tensor]] = {
    "atan": atan,
    "triangle": triangle,
    "sigmoid": sigmoid,
}


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

    @property
    def gain(self) -> float:
        """What the input current is multiplied by."""
        return 1 - self.beta if self.decay_input else 1.0

    @property
    def leaked_rest(self) -> float:
        """What one step of leak adds to the potential."""
        return (1 - self.beta) * self.v_rest

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
