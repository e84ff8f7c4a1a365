"""A GPU where there is none: after `pretend()`, `cuda` is a device of this process.

Its tensors keep their values in the memory of the CPU and compute there, but refuse what a GPU
refuses: tensors of both devices in one operation, a generator of the other device, NumPy, and
operations that torch has for CPUs alone. What it cannot find: how the kernels of a GPU round, lack
of memory, automatic mixed precision, which does nothing here, and what is not awaited.

To torch it is the backend that extensions may bring; Python code is told that it is `cuda:0`. A
mode translates what such code says, and the tensors what they say themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Self

import torch
from gpu_tensor import (
    HIDDEN,
    SHOWN,
    GpuTensor,
    gpu_generator,
    replace_data,
    require_generator,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

KERNELS = torch.library.Library("aten", "IMPL")
"""What torch does without asking the tensors; they last as long as this object."""


def pretend() -> None:
    """From here on this process has a GPU, for good.

    To be called before any backward pass, as torch looks for devices at the first.
    """
    _setup_privateuseone_for_python_backend(rename="pretended", backend_module=Backend())
    for name, kernel in OWN.items():
        KERNELS.impl(name, kernel, "PrivateUse1")
    for name, found in CUDA.items():
        setattr(torch.cuda, name, found)
    torch.Generator = AnyGenerator  # type: ignore[misc]
    torch._C.DisableTorchFunction = Unwatched  # type: ignore[assignment]
    Translating().__enter__()


class Translating(TorchFunctionMode):
    """Lets Python code say `cuda`."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": hidden(kwargs["device"])}
        special = SPECIAL.get(getattr(function, "__name__", ""))
        result = special(function, *args, **kwargs) if special else function(*args, **kwargs)
        if isinstance(result, Tensor):
            require_generator(kwargs.get("generator"), gpu=isinstance(result, GpuTensor))
        return result


class Unwatched(contextlib.ExitStack):
    """`torch._C.DisableTorchFunction`, but that the device stays."""

    def __enter__(self) -> Self:
        for _ in range(torch._C._len_torch_function_stack() - 1):
            self.callback(_push_mode, _pop_mode())
        self.enter_context(torch._C.DisableTorchFunctionSubclass())
        return super().__enter__()


class AnyGenerator(torch.Generator):
    """`torch.Generator` of either device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        return gpu_generator() if hidden(device) == HIDDEN else _Generator()


_Generator = torch.Generator


class Backend(_DummyBackendModule):
    """What torch asks of the device, beside what its own stand-in knows: one stream of numbers."""

    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: None)


def hidden(device: Any) -> torch.device:
    """The device that is meant, as torch takes it."""
    found = torch.device(device)
    return HIDDEN if found.type == SHOWN.type else found


def _moved(function: Any, *args: Any, **kwargs: Any) -> Any:
    """`to` of tensors and modules, whose device may stand anywhere."""
    return function(*(hidden(one) if _is_device(one) else one for one in args), **kwargs)


def _is_device(value: object) -> bool:
    return isinstance(value, str | torch.device)


def _set(function: Any, one: Any, other: Any) -> None:
    """Setting `data` may change the device, other attributes do not."""
    is_data = getattr(function.__self__, "__name__", "") == "data"
    (replace_data if is_data else function)(one, other)


SPECIAL: dict[str, Callable[..., Any]] = {
    "to": _moved,
    "_parse_to": _moved,
    "cuda": lambda function, tensor, *_, **__: tensor.to(HIDDEN),
    "__set__": _set,
    "_has_compatible_shallow_copy_type": lambda function, *_: True,  # as setting `data` takes all
    "pin_memory": lambda function, tensor, *_: tensor,
}


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return GpuTensor(torch.empty(size, dtype=dtype, memory_format=memory_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return GpuTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Tensor:
    getattr(target, "held", target).copy_(getattr(source, "held", source))
    return target


OWN: dict[str, Callable[..., Any]] = {
    "empty.memory_format": _empty,
    "empty_strided": _empty_strided,
    "_copy_from": _copy_from,
}
CUDA: dict[str, Callable[..., Any]] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "_lazy_init": lambda: None,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "pretended GPU",
    "is_bf16_supported": lambda: True,
    "synchronize": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": Backend.get_rng_state,
    "set_rng_state": Backend.set_rng_state,
}
