# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The steps of `plain` for a block of neurons, as Triton compiles them for a GPU.

Tensors are (steps, neurons), of any floating-point type; the steps of the current lie `stride`
elements apart (0: the same at every step), all else is contiguous.
"""

import triton
import triton.language as tl


@triton.jit
def _leak(u, s, beta, threshold, leaked_rest, on_spike, SOFT: tl.constexpr):
    """h of Eq. 4."""
    if SOFT:
        return beta * (u - threshold * s) + leaked_rest
    return beta * (u - u * s) + leaked_rest + on_spike * s


@triton.jit
def _derivative(z, SURROGATE: tl.constexpr):
    """ds/du, as `dynamics.SURROGATES` with their usual width."""
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
