"""A LIF neuron: its constants, Eq. 2-4, the derivatives put for the spike's; and, by torch's own
operations step by step, spikes and gradients. All else is held against these.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from snnprune.errors import InputError, did_you_mean

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


def fire(current: Tensor, dynamics: Dynamics) -> Tensor:
    """Spikes (T, ...) float32 of neurons driven by `current` (T, ...) float32; differentiable."""
    if torch.is_grad_enabled() and current.requires_grad:
        return _Fire.apply(current, dynamics)
    spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
    membrane = torch.empty_like(spikes[0])
    _fill_steps(current, [membrane] * len(current), spikes, dynamics)
    return spikes


def fire_and_keep_membrane(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and the membrane potential before reset, both (T, ...) float32; no gradient."""
    spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
    membrane = torch.empty_like(spikes)
    _fill_steps(current, list(membrane), spikes, dynamics)
    return spikes, membrane


def fire_and_keep_distance(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and u - threshold before reset, both (T, ...) float32; no gradient."""
    spikes, membrane = fire_and_keep_membrane(current, dynamics)
    return spikes, membrane.sub_(dynamics.threshold)


def _fill_steps(
    current: Tensor, membrane: list[Tensor], spikes: Tensor, dynamics: Dynamics
) -> None:
    """Fill `membrane` and `spikes` step by step (Eq. 2-4)."""
    carried = torch.full_like(spikes[0], dynamics.v_rest)  # h of Eq. 2
    for x, u, s in zip(current, membrane, spikes, strict=True):
        torch.add(carried, x, alpha=dynamics.gain, out=u)
        torch.ge(u, dynamics.threshold, out=s)
        _reset_and_leak(u, s, dynamics, out=carried)


def _reset_and_leak(u: Tensor, s: Tensor, dynamics: Dynamics, *, out: Tensor) -> None:
    """h of Eq. 4 into `out`, which may not be `u`."""
    if dynamics.reset == "soft":
        torch.add(u, s, alpha=-dynamics.threshold, out=out)
        rest, on_spike = dynamics.leaked_rest, 0.0
    else:
        torch.addcmul(u, u, s, value=-1, out=out)  # u where it did not fire, else 0
        rest, on_spike = dynamics.leaked_rest, dynamics.v_reset - dynamics.leaked_rest
    out.mul_(dynamics.beta)
    if rest:
        out.add_(rest)
    if on_spike:
        out.add_(s, alpha=on_spike)


class _Fire(torch.autograd.Function):
    """`fire` with backpropagation through time and the surrogate derivative of `dynamics`."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, dynamics: Dynamics) -> Tensor:
        spikes, membrane = fire_and_keep_membrane(current, dynamics)
        ctx.save_for_backward(membrane)
        ctx.dynamics = dynamics
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (membrane,) = ctx.saved_tensors
        return compute_gradient(grads[0], membrane, ctx.dynamics), None


def compute_gradient(grad_spikes: Tensor, membrane: Tensor, dynamics: Dynamics) -> Tensor:
    """dL/dcurrent (T, ...) from dL/dspikes (T, ...), last step first.

    dL/du[t] = (dL/ds[t] + dL/dh[t] dh/ds) ds/du + dL/dh[t] dh/du, with dL/dh[t] = dL/du[t+1].
    """
    derivative = SURROGATES[dynamics.surrogate]
    grad = torch.empty_like(membrane)
    quiet = torch.empty_like(membrane[0])
    later: Tensor | None = None  # dL/du of the step after
    for u, grad_s, grad_u in zip(
        membrane.unbind()[::-1], grad_spikes.unbind()[::-1], grad.unbind()[::-1], strict=True
    ):
        if later is not None and not dynamics.detach_reset:
            grad_s = torch.addcmul(grad_s, later, _reset_slope(u, dynamics))
        torch.mul(grad_s, derivative(u - dynamics.threshold), out=grad_u)
        if later is not None and dynamics.reset == "soft":
            grad_u.add_(later, alpha=dynamics.beta)
        elif later is not None:  # a hard reset forgets u
            torch.lt(u, dynamics.threshold, out=quiet)
            grad_u.addcmul_(later, quiet, value=dynamics.beta)
        later = grad_u
    return grad.mul_(dynamics.gain) if dynamics.decay_input else grad


def _reset_slope(u: Tensor, dynamics: Dynamics) -> Tensor:
    """dh/ds of Eq. 4: what a spike takes from the potential that is carried on."""
    if dynamics.reset == "soft":
        return torch.full_like(u, -dynamics.beta * dynamics.threshold)
    return dynamics.v_reset - dynamics.leaked_rest - dynamics.beta * u


def spike(u: Tensor, dynamics: Dynamics) -> Tensor:
    """Spikes of one step, 0 or 1, from the membrane potential before reset; differentiable."""
    return _Spike.apply(u, dynamics)


def leak(u: Tensor, spikes: Tensor, dynamics: Dynamics) -> Tensor:
    """h of Eq. 4, what a membrane carries to the next step; differentiable."""
    if dynamics.detach_reset:
        spikes = spikes.detach()
    if dynamics.reset == "soft":
        kept = u - dynamics.threshold * spikes
        return dynamics.leaked_rest + dynamics.beta * kept
    kept = dynamics.leaked_rest + dynamics.beta * u
    return kept * (1 - spikes) + dynamics.v_reset * spikes


class _Spike(torch.autograd.Function):
    """A threshold with the surrogate derivative of `dynamics`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, dynamics: Dynamics) -> Tensor:
        ctx.save_for_backward(u)
        ctx.dynamics = dynamics
        return (u >= dynamics.threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        dynamics: Dynamics = ctx.dynamics
        return grads[0] * SURROGATES[dynamics.surrogate](u - dynamics.threshold), None
