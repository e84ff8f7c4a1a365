"""Spikes and gradients by Triton, on a GPU: one kernel each way, for any floating-point type.

Backward keeps only the current, and computes u again. The membrane is float32; the last bits of
gradients may differ from those of `plain`.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnprune.models.lif.dynamics import Dynamics
from snnprune.models.lif.native import lay_out
from snnprune.models.lif.triton_kernels import backward_kernel, forward_kernel

BLOCK = 1024  # neurons of a program
SURROGATES = {"atan": 0, "triangle": 1, "sigmoid": 2}


def fire(current: Tensor, dynamics: Dynamics) -> Tensor:
    """Spikes (T, ...) in the type of `current` (T, ...); differentiable."""
    if torch.is_grad_enabled() and current.requires_grad:
        return _Fire.apply(current, dynamics)
    return _run_forward(current, dynamics, None)


def fire_and_keep_membrane(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and the float32 membrane potential before reset, both (T, ...); no gradient."""
    membrane = _make_room(current, torch.float32)
    return _run_forward(current, dynamics, membrane), membrane


def compute_gradient(grad_spikes: Tensor, current: Tensor, dynamics: Dynamics) -> Tensor:
    """dL/dcurrent (T, ...) in its type, from dL/dspikes (T, ...)."""
    grad = _make_room(current, current.dtype)
    membrane = grad if grad.dtype == torch.float32 else _make_room(current, torch.float32)
    current, stride = lay_out(current)
    with torch.cuda.device_of(current):
        backward_kernel[_grid(grad)](
            current, stride, grad_spikes.contiguous(), grad, membrane, *_numbers(grad, dynamics),
            SOFT=dynamics.reset == "soft", DETACH=dynamics.detach_reset,
            SURROGATE=SURROGATES[dynamics.surrogate], BLOCK=BLOCK,
        )  # fmt: skip
    return grad


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, dynamics: Dynamics) -> Tensor:
        current, _ = lay_out(current)
        ctx.save_for_backward(current)
        ctx.dynamics = dynamics
        return _run_forward(current, dynamics, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (current,) = ctx.saved_tensors
        return compute_gradient(grads[0], current, ctx.dynamics), None


def _run_forward(current: Tensor, dynamics: Dynamics, membrane: Tensor | None) -> Tensor:
    spikes = _make_room(current, current.dtype)
    current, stride = lay_out(current)
    with torch.cuda.device_of(current):
        forward_kernel[_grid(spikes)](
            current, stride, spikes, membrane, *_numbers(spikes, dynamics),
            SOFT=dynamics.reset == "soft", BLOCK=BLOCK,
        )  # fmt: skip
    return spikes


def _make_room(current: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(current, dtype=dtype, memory_format=torch.contiguous_format)


def _grid(tensor: Tensor) -> tuple[int]:
    """The number of programs that go through the neurons of (T, ...)."""
    return (triton.cdiv(tensor[0].numel(), BLOCK),)


def _numbers(tensor: Tensor, dynamics: Dynamics) -> tuple[float, ...]:
    """Steps, neurons and the constants of Eq. 2-4."""
    soft = dynamics.reset == "soft"
    on_spike = 0.0 if soft else dynamics.v_reset - dynamics.leaked_rest
    return (
        *(len(tensor), tensor[0].numel()),
        *(dynamics.beta, dynamics.threshold, dynamics.v_rest),
        *(dynamics.gain, dynamics.leaked_rest, on_spike),
    )
