# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Spikes and gradients by Triton, on a GPU: one kernel each way, for any floating-point type.

Backward keeps only the current, and computes u again. The membrane is float32; the last bits of
gradients may differ from those of `plain`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnprune.models.lif.native import lay_out
from snnprune.models.lif.plain import Dynamics

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


def fire_and_keep_distance(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes, and that less the threshold, both (T, ...); no gradient."""
    spikes, membrane = fire_and_keep_membrane(current, dynamics)
    return spikes, membrane.sub_(dynamics.threshold)


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


# The steps of `plain` for a block of neurons, as Triton compiles them. Tensors are (steps,
# neurons), of any floating-point type; the steps of the current lie `stride` elements apart (0:
# the same at every step), all else is contiguous.


@triton.jit
def _leak(u, s, beta, threshold, leaked_rest, on_spike, SOFT: tl.constexpr):
    """h of Eq. 4."""
    if SOFT:
        return beta * (u - threshold * s) + leaked_rest
    return beta * (u - u * s) + leaked_rest + on_spike * s


@triton.jit
def _derivative(z, SURROGATE: tl.constexpr):
    """ds/du, as `plain.SURROGATES` with their usual width."""
    if SURROGATE == 0:
        return 1.0 / (1.0 + 9.869604401089358 * z * z)  # pi^2
    if SURROGATE == 1:
        return tl.maximum(1.0 - tl.abs(z), 0.0, propagate_nan=tl.PropagateNan.ALL)
    rising = tl.sigmoid(4.0 * z)
    return 4.0 * (1.0 - rising) * rising


@triton.jit
def forward_kernel(
    current, stride, spikes, membrane, steps, neurons,
    beta, threshold, v_rest, gain, leaked_rest, on_spike,
    SOFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes (steps, neurons), and u where `membrane` is given."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < neurons
    x = current + at
    h = tl.zeros([BLOCK], tl.float32) + v_rest
    for _ in range(steps):
        u = h + gain * tl.load(x, mask=inside, other=0.0).to(tl.float32)
        s = (u >= threshold).to(tl.float32)
        tl.store(spikes + at, s.to(spikes.dtype.element_ty), mask=inside)
        if membrane is not None:
            tl.store(membrane + at, u, mask=inside)
        h = _leak(u, s, beta, threshold, leaked_rest, on_spike, SOFT)
        x += stride
        at += neurons


@triton.jit
def backward_kernel(
    current, stride, grad_spikes, grad, membrane, steps, neurons,
    beta, threshold, v_rest, gain, leaked_rest, on_spike,
    SOFT: tl.constexpr, DETACH: tl.constexpr, SURROGATE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """dL/dcurrent (steps, neurons); `membrane` is room for u, and may be `grad` in float32."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < neurons
    x = current + at
    h = tl.zeros([BLOCK], tl.float32) + v_rest
    for _ in range(steps):
        u = h + gain * tl.load(x, mask=inside, other=0.0).to(tl.float32)
        s = (u >= threshold).to(tl.float32)
        tl.store(membrane + at, u, mask=inside)
        h = _leak(u, s, beta, threshold, leaked_rest, on_spike, SOFT)
        x += stride
        at += neurons
    later = tl.zeros([BLOCK], tl.float32)  # dL/du of the step after
    for _ in range(steps):
        at -= neurons
        u = tl.load(membrane + at, mask=inside, other=0.0)
        grad_s = tl.load(grad_spikes + at, mask=inside, other=0.0).to(tl.float32)
        if not DETACH:
            grad_s += later * (-beta * threshold if SOFT else on_spike - beta * u)
        kept = 1.0 if SOFT else (u < threshold).to(tl.float32)  # a hard reset forgets u
        later = grad_s * _derivative(u - threshold, SURROGATE) + beta * later * kept
        tl.store(grad + at, (gain * later).to(grad.dtype.element_ty), mask=inside)
