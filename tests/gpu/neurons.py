"""What the kernels are held against: other ways from a current (T, ...) to spikes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from measuring import Unavailable
from torch import Tensor, nn

from snnprune.models.lif import Dynamics, plain

Fire = Callable[[Tensor], Tensor]
BACK_ENDS = ("auto", "torch", "cupy", "cuda", "triton")
"""Of SpikingJelly: 0.0.0.0.14 has torch and cupy, 2.0.0 torch, cuda, triton; auto: as it comes."""
DYNAMICS = Dynamics()


class Spike(torch.autograd.Function):
    """1 where x >= 0, with the derivative of `plain.atan`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (1 + (math.pi * x) ** 2)


class LoopLIF(nn.Module):
    """Eq. 2-4 as one writes them down, with autograd's graph over every step."""

    def forward(self, current: Tensor) -> Tensor:
        """Spikes (T, ...) in the type of `current`; the membrane is float32."""
        h, spikes = torch.zeros_like(current[0], dtype=torch.float32), []
        for x in current:
            u = h + x
            s = Spike.apply(u - DYNAMICS.threshold)
            h = DYNAMICS.beta * u * (1 - s.detach())
            spikes.append(s)
        return torch.stack(spikes).to(current.dtype)


class StepwiseReLU(nn.Module):
    """ReLU of every step, in place of neurons."""

    def forward(self, current: Tensor) -> Tensor:
        return current.relu()


def make_triton(device: torch.device) -> Fire:
    """Our kernels, on a GPU or by Triton's interpreter.

    Raises:
        Unavailable: neither is here.
    """
    try:
        from triton import knobs

        from snnprune.models.lif import gpu
    except ImportError as error:
        raise Unavailable(str(error)) from None
    if device.type != "cuda" and not knobs.runtime.interpret:
        raise Unavailable("needs a GPU, or TRITON_INTERPRET=1")
    return lambda current: gpu.fire(current, DYNAMICS)


def make_plain(device: torch.device) -> Fire:
    """torch's operations, which take float32, as `LIF` calls them."""
    return lambda current: plain.fire(current.float(), DYNAMICS).to(current.dtype)


def make_spikingjelly(device: torch.device, back_end: str) -> Fire:
    """SpikingJelly's LIFNode by one of its back ends; `auto`: as it comes.

    Raises:
        Unavailable: it has no such back end, or lacks what that needs.
    """
    package = "spikingjelly.activation_based"
    try:
        functional, neuron, surrogate = (
            importlib.import_module(f"{package}.{name}")
            for name in ("functional", "neuron", "surrogate")
        )
    except ImportError as error:
        raise Unavailable(str(error)) from None
    node = neuron.LIFNode(
        2.0, decay_input=False, v_reset=0.0, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.ATan(),
    )  # fmt: skip
    if back_end not in ("auto", "torch") and device.type != "cuda":
        raise Unavailable("needs a GPU")
    if hasattr(node, "supported_backends"):
        choose_old_back_end(node, back_end)
    else:
        choose_back_end(functional, back_end, device)
        if back_end != "auto":
            return fire_with_wide_membrane(functional.lif_multi_step, node)

    def fire(current: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(current)
        return spikes

    return fire


def choose_old_back_end(node: Any, back_end: str) -> None:
    """Let a LIFNode of before 2.0.0 compute by `back_end`.

    Raises:
        Unavailable: it has none of that name, or a library is missing.
    """
    try:
        node.backend = node.backend if back_end == "auto" else back_end
    except (NotImplementedError, ImportError) as error:
        raise Unavailable(str(error)) from None


def choose_back_end(functional: Any, back_end: str, device: torch.device) -> None:
    """Do what SJ_LIF_CUDA_IMPLEMENTATION, which is read but once, does in 2.0.0.

    Raises:
        Unavailable: it has none of that name, or that cannot run here.
    """
    if back_end == "cupy":
        raise Unavailable("this SpikingJelly has cuda in its place")
    try:
        selection = importlib.import_module("spikingjelly._ops.lif")._selection
        selection._requested = back_end
        selection._selections.clear()
        functional.neuron_implementation("lif", device)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise Unavailable(str(error)) from None


def fire_with_wide_membrane(lif_multi_step: Callable[..., Any], node: Any) -> Fire:
    """What LIFNode calls, the membrane float32: of bfloat16 its kernels will not have it."""

    def fire(current: Tensor) -> Tensor:
        spikes: Tensor = lif_multi_step(
            current, torch.zeros_like(current[0], dtype=torch.float32), node.tau, node.decay_input,
            node.v_threshold, node.v_reset, node.surrogate_function, node.detach_reset,
        )[0]  # fmt: skip
        return spikes

    return fire
