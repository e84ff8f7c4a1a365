"""Which of the paths from current to spikes is taken: torch's operations, or one kernel for all.

The native path is taken where it gives the same bits, so that no result depends on it.
"""

import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from snnprune.errors import UsageError, did_you_mean
from snnprune.models.lif import plain
from snnprune.models.lif.native import NativePath, find_native_path, is_watched
from snnprune.models.lif.plain import Dynamics
from snnprune.runtime import LIF_VARIABLE

VARIABLE = LIF_VARIABLE
CHOICES = ("plain", "native", "triton")
NARROW = (torch.float32, torch.bfloat16, torch.float16)
LARGE = 2**16  # elements of a current for which a second of compiling is worth while
SHAPES = ((1, 67), (2, 8), (4, 3, 5, 7), (5, 301))  # T first; ends of all kinds after whole vectors
ODD = (0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, -3e38)


class Path(Protocol):
    """From current to spikes."""

    def fire(self, current: Tensor, dynamics: Dynamics) -> Tensor:
        """Spikes (T, ...) float32; differentiable."""
        ...

    def fire_and_keep_distance(self, current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
        """Spikes and u - threshold before reset, both (T, ...) float32."""
        ...


def choose_path(current: Tensor, dynamics: Dynamics) -> Path:
    """The fastest path for `current` (T, ...), `widen`ed, that gives the bits of `plain`.

    On a GPU it is `plain`, unless `$SNNPRUNE_LIF` says `triton`, whose last bits may be others.

    Raises:
        UsageError: `$SNNPRUNE_LIF` asks for what is not there.
    """
    if is_watched(current) or not current.numel():
        return plain
    choice = read_choice()
    if choice == "plain":
        return plain
    if choice == "triton" and current.is_cuda and current.dtype in NARROW:
        return _require_triton_path()
    if not current.is_cpu or current.dtype != torch.float32:
        return plain
    if choice == "native":
        return _require_native_path(dynamics)
    if current.numel() < LARGE and not find_native_path.cache_info().currsize:
        return plain  # it would have to be loaded first, or compiled
    found = _find_native_path(dynamics)
    return plain if isinstance(found, str) else found


def widen(current: Tensor) -> Tensor:
    """`current` in float32, or as it is where the kernel of its path widens it itself."""
    narrow = current.is_cuda and current.dtype in NARROW
    # the compiler of an old torch cannot read the environment, so that this is asked for at last
    by_kernel = narrow and not is_watched(current) and read_choice() == "triton"
    return current if by_kernel else current.float()


def read_choice() -> str:
    """What `$SNNPRUNE_LIF` says; empty where it says nothing.

    Raises:
        UsageError: it is none of the choices.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text and text not in CHOICES:
        raise UsageError(
            f"unknown choice {text!r}", field=VARIABLE, hint=did_you_mean(text, CHOICES)
        )
    return text


def describe_choice() -> str:
    """How neurons are computed on this machine, and why: loads the library as a network would.

    Raises:
        UsageError: `$SNNPRUNE_LIF` asks for what is not there.
    """
    choice = read_choice()
    if choice == "plain":
        return f"plain ({VARIABLE})"
    on_gpu = ""
    if choice == "triton":
        _require_triton_path()
        on_gpu = "; triton on a GPU"
    found = _find_native_path(Dynamics())
    if isinstance(found, str):
        if choice == "native":
            _require_native_path(Dynamics())
        return f"plain ({found}){on_gpu}"
    return f"native ({found.compiler}, {'OpenMP' if found.parallel else 'one thread'}){on_gpu}"


def _find_native_path(dynamics: Dynamics) -> NativePath | str:
    """The native path, or why not."""
    found = find_native_path()
    if isinstance(found, str):
        return found
    if not found.parallel and torch.get_num_threads() > 1:
        return f"{found.compiler} without OpenMP, {torch.get_num_threads()} threads"
    return found if gives_the_same_bits(found, dynamics) else "torch rounds otherwise here"


def _require_native_path(dynamics: Dynamics) -> Path:
    found = _find_native_path(dynamics)
    if isinstance(found, str):
        raise UsageError(f"native is not to be had: {found}", field=VARIABLE)
    return found


def _require_triton_path() -> Path:
    try:  # here, as it takes a second and few have it
        return import_module("snnprune.models.lif.gpu")
    except ImportError:
        raise UsageError("triton is not installed", field=VARIABLE) from None


@cache
def gives_the_same_bits(path: NativePath, dynamics: Dynamics) -> bool:
    """Whether spikes, membranes and gradients are those of `plain`; a few ms."""
    return all(
        _are_same(one, other)
        for current, grad_spikes in _draw(dynamics)
        for one, other in _compute_both(path, current, grad_spikes, dynamics)
    )


def _draw(dynamics: Dynamics) -> Iterator[tuple[Tensor, Tensor]]:
    """Currents that make some neurons fire, and gradients, contiguous and not."""
    generator = torch.Generator().manual_seed(0)
    scale = (1 + abs(dynamics.threshold)) / (dynamics.gain or 1.0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    for shape in SHAPES:
        current, grad_spikes = scale * draw(shape), draw(shape)
        yield current, grad_spikes
        yield current[:1].expand(shape), grad_spikes
        if len(shape) > 2:
            yield current.transpose(1, -1), grad_spikes.transpose(1, -1)
        current.view(-1)[: len(ODD)] = torch.tensor(ODD)
        current[0].view(-1)[-1] = dynamics.threshold
        yield current, grad_spikes


def _compute_both(
    path: NativePath, current: Tensor, grad_spikes: Tensor, dynamics: Dynamics
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs that should be the same, of the native and of the plain path."""
    spikes, membrane = plain.fire_and_keep_membrane(current, dynamics)
    native_spikes, native_membrane = path.fire_and_keep_membrane(current, dynamics)
    yield native_spikes, spikes
    yield native_membrane, membrane
    yield path.fire_and_keep_distance(current, dynamics)[1], membrane - dynamics.threshold
    yield (
        path.compute_gradient(grad_spikes, current, dynamics),
        plain.compute_gradient(grad_spikes, membrane, dynamics),
    )


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, but that one NaN is as good as another."""
    same = (one.view(torch.int32) == other.view(torch.int32)) | (one.isnan() & other.isnan())
    return bool(same.all())
