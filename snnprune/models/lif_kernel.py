"""The LIF recurrence and its gradient, each one pass over time with no graph per step.

In backward only the membrane potential is needed: spikes are read off it again.
"""

from typing import Any

import torch
from torch import Tensor

from snnprune.models.dynamics import Dynamics
from snnprune.models.surrogate import SURROGATES


def fire(current: Tensor, dynamics: Dynamics) -> Tensor:
    """Spikes (T, ...) float32 of neurons driven by `current` (T, ...) float32; differentiable."""
    if torch.is_grad_enabled() and current.requires_grad:
        return _Fire.apply(current, dynamics)
    spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
    membrane = torch.empty_like(spikes[0])
    _run(current, [membrane] * len(current), spikes, dynamics)
    return spikes


def fire_and_keep_membrane(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and the membrane potential before reset, both (T, ...) float32; no gradient."""
    spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
    membrane = torch.empty_like(spikes)
    _run(current, list(membrane), spikes, dynamics)
    return spikes, membrane


def _run(current: Tensor, membrane: list[Tensor], spikes: Tensor, dynamics: Dynamics) -> None:
    """Fill `membrane` and `spikes` step by step (Eq. 2-4)."""
    gain = 1 - dynamics.beta if dynamics.decay_input else 1.0
    carried = torch.full_like(spikes[0], dynamics.v_rest)  # h of Eq. 2
    for x, u, s in zip(current, membrane, spikes, strict=True):
        torch.add(carried, x, alpha=gain, out=u)
        torch.ge(u, dynamics.threshold, out=s)
        _reset_and_leak(u, s, dynamics, out=carried)


def _reset_and_leak(u: Tensor, s: Tensor, dynamics: Dynamics, *, out: Tensor) -> None:
    """h of Eq. 4 into `out`, which may not be `u`."""
    if dynamics.reset == "soft":
        torch.add(u, s, alpha=-dynamics.threshold, out=out).mul_(dynamics.beta)
        out.add_((1 - dynamics.beta) * dynamics.v_rest)
        return
    leaked_rest = (1 - dynamics.beta) * dynamics.v_rest
    # (1 - s) kills the potential of a neuron that fired; its spike then carries v_reset
    torch.addcmul(u, u, s, value=-1, out=out).mul_(dynamics.beta)
    if leaked_rest or dynamics.v_reset:
        out.add_(leaked_rest).add_(s, alpha=dynamics.v_reset - leaked_rest)


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
        return _gradient(grads[0], membrane, ctx.dynamics), None


def _gradient(grad_spikes: Tensor, membrane: Tensor, dynamics: Dynamics) -> Tensor:
    """dL/dcurrent (T, ...) from dL/dspikes (T, ...), last step first."""
    derivative = SURROGATES[dynamics.surrogate]
    grad = torch.empty_like(membrane)
    grad_carried = torch.zeros_like(membrane[0])
    for t in reversed(range(len(membrane))):
        u, grad_u = membrane[t], grad[t]
        ds_du = derivative(u - dynamics.threshold)
        through_spike = grad_spikes[t]
        if not dynamics.detach_reset:
            through_spike = torch.addcmul(through_spike, grad_carried, _reset_slope(u, dynamics))
        torch.mul(through_spike, ds_du, out=grad_u)
        alive = (
            grad_carried if dynamics.reset == "soft" else grad_carried.mul_(u < dynamics.threshold)
        )
        grad_u.add_(alive, alpha=dynamics.beta)
        grad_carried.copy_(grad_u)
    return grad.mul_(1 - dynamics.beta) if dynamics.decay_input else grad


def _reset_slope(u: Tensor, dynamics: Dynamics) -> Tensor:
    """dh/ds of Eq. 4: what a spike takes from the potential that is carried on."""
    if dynamics.reset == "soft":
        return torch.full_like(u, -dynamics.beta * dynamics.threshold)
    leaked_rest = (1 - dynamics.beta) * dynamics.v_rest
    return dynamics.v_reset - leaked_rest - dynamics.beta * u
