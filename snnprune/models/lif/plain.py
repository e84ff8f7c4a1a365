"""Spikes and gradients by torch's own operations, step by step: what all else is held against."""

from typing import Any

import torch
from torch import Tensor

from snnprune.models.lif.dynamics import SURROGATES, Dynamics


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
