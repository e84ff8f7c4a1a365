"""Spikes and gradients by `kernel.cpp`, on the CPU: the bits of `plain`, in one sweep each way.

Backward keeps only the current, and computes u again.
"""

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode

from snnprune.models.lif import plain
from snnprune.models.lif.plain import Dynamics, SurrogateName
from snnprune.runtime import UnavailableError, count_threads, load_library

SOURCE = Path(__file__).with_name("kernel.cpp")
SURROGATES: dict[SurrogateName, tuple[int, float, float]] = {
    "atan": (0, 1.0, math.pi**2),
    "triangle": (1, 1.0, 1.0),
}
"""Number and constants in `kernel.cpp`; the derivatives of the others are torch's alone."""


class Constants(ctypes.Structure):
    """`Neuron` of `kernel.cpp`."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("beta", "threshold", "v_rest", "gain")),
        *((name, ctypes.c_float) for name in ("leaked_rest", "on_spike", "soft_slope")),
        *((name, ctypes.c_float) for name in ("surrogate_a", "surrogate_b")),
        *((name, ctypes.c_int32) for name in ("soft", "detach_reset", "surrogate")),
    )


@cache
def _constants_of(dynamics: Dynamics) -> Constants:
    soft = dynamics.reset == "soft"
    number, a, b = SURROGATES.get(dynamics.surrogate, (0, 0.0, 0.0))
    return Constants(
        beta=dynamics.beta,
        threshold=dynamics.threshold,
        v_rest=dynamics.v_rest,
        gain=dynamics.gain,
        leaked_rest=dynamics.leaked_rest,
        on_spike=0.0 if soft else dynamics.v_reset - dynamics.leaked_rest,
        soft_slope=-dynamics.beta * dynamics.threshold,
        surrogate_a=a,
        surrogate_b=b,
        soft=soft,
        detach_reset=dynamics.detach_reset,
        surrogate=number,
    )


class NativePath:
    """The functions of the compiled library, on tensors of the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        sizes = (count, count, ctypes.POINTER(Constants), ctypes.c_int)
        self._forward, self._backward = library.lif_forward, library.lif_backward
        self._forward.argtypes = (pointer, count, pointer, pointer, ctypes.c_float, *sizes)
        self._backward.argtypes = (pointer, count, pointer, pointer, *sizes)
        self._forward.restype = self._backward.restype = None
        library.lif_compiler.restype = ctypes.c_char_p
        self.compiler: str = library.lif_compiler().decode()
        self.parallel = bool(library.lif_parallel())
        """Whether it can use several threads."""

    def fire(self, current: Tensor, dynamics: Dynamics) -> Tensor:
        """As `plain.fire`."""
        if torch.is_grad_enabled() and current.requires_grad:
            return _Fire.apply(current, dynamics, self)
        return self._run_forward(current, dynamics, None)

    def fire_and_keep_membrane(self, current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
        """As `plain.fire_and_keep_membrane`."""
        membrane = torch.empty_like(current, memory_format=torch.contiguous_format)
        return self._run_forward(current, dynamics, membrane), membrane

    def fire_and_keep_distance(self, current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
        """As `plain.fire_and_keep_distance`."""
        distance = torch.empty_like(current, memory_format=torch.contiguous_format)
        above = dynamics.threshold
        return self._run_forward(current, dynamics, distance, above=above), distance

    def _run_forward(
        self, current: Tensor, dynamics: Dynamics, membrane: Tensor | None, *, above: float = 0.0
    ) -> Tensor:
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        current, stride = lay_out(current)
        into = None if membrane is None else membrane.data_ptr()
        sizes = _sizes(spikes, dynamics)
        self._forward(current.data_ptr(), stride, spikes.data_ptr(), into, above, *sizes)
        return spikes

    def compute_gradient(self, grad_spikes: Tensor, current: Tensor, dynamics: Dynamics) -> Tensor:
        """dL/dcurrent (T, ...) from dL/dspikes (T, ...), as `plain.compute_gradient`."""
        if is_watched(grad_spikes) or dynamics.surrogate not in SURROGATES:
            _, membrane = self.fire_and_keep_membrane(current, dynamics)
            return plain.compute_gradient(grad_spikes, membrane, dynamics)
        grad = torch.empty_like(current, memory_format=torch.contiguous_format)
        current, stride = lay_out(current)
        grad_spikes = grad_spikes.contiguous()
        sizes = _sizes(grad, dynamics)
        self._backward(current.data_ptr(), stride, grad_spikes.data_ptr(), grad.data_ptr(), *sizes)
        return grad


def is_watched(tensor: Tensor) -> bool:
    """Whether it is more than numbers in memory, or operations are being recorded or changed.

    So it is in `torch.compile`, `torch.export`, `torch.jit.trace` and `torch.func`, and while
    `graph.tracer` follows a network. A mode of torch functions that wants none of them says so by
    `watches_neurons = False`.
    """
    return (
        torch.compiler.is_compiling()  # first: what follows cannot be compiled
        or any(getattr(m, "watches_neurons", True) for m in _get_current_function_mode_stack())
        or _get_current_dispatch_mode() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or type(tensor) not in (Tensor, nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.is_neg()  # of which memory holds the opposite
    )


def lay_out(current: Tensor) -> tuple[Tensor, int]:
    """`current` with each step in one piece, and the distance of its steps; 0: all are the same."""
    if current.stride(0) == 0 and current[0].is_contiguous():
        return current, 0
    return current.contiguous(), current[0].numel()


def _sizes(tensor: Tensor, dynamics: Dynamics) -> tuple[int, int, Constants, int]:
    """Steps, neurons, constants and threads for a tensor (T, ...)."""
    count = tensor.numel()
    return len(tensor), count // len(tensor), _constants_of(dynamics), count_threads(count)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, dynamics: Dynamics, path: NativePath) -> Tensor:
        current, _ = lay_out(current)
        ctx.save_for_backward(current)
        ctx.dynamics, ctx.path = dynamics, path
        return path.fire(current, dynamics)  # no gradient is wanted in here

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (current,) = ctx.saved_tensors
        return ctx.path.compute_gradient(grads[0], current, ctx.dynamics), None, None


@cache
def find_native_path() -> NativePath | str:
    """The path, compiled if need be, or in words why there is none; asked once in a process."""
    try:
        return NativePath(load_library(SOURCE))
    except UnavailableError as error:
        return str(error)
    except AttributeError:  # the file is somebody's who named it as ours
        return "it lacks functions"
