"""Tensors of a pretended GPU, which compute on the CPU and refuse what a GPU refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

HIDDEN = torch.device("privateuseone", 0)
"""What torch takes the device for."""
SHOWN = torch.device("cuda", 0)
"""What Python code takes it for."""
CROSSINGS = frozenset({"aten::copy_", "aten::_to_copy"})
INDEXING = frozenset({"aten::index", "aten::index_put", "aten::index_put_"})
"""These take indices of the CPU too."""
SCALED = frozenset({"aten::fill_", "aten::masked_fill", "aten::masked_fill_"})
"""Not pointwise by torch's own tags, and yet they take a number of the CPU."""


class MixedDevicesError(RuntimeError):
    """In the words of torch."""


class GpuTensor(Tensor):
    """A tensor that is `held` on the pretended GPU."""

    held: Tensor
    """On the CPU."""

    @staticmethod
    def __new__(cls, values: Tensor) -> GpuTensor:
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=HIDDEN,
        )
        made.held = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(function, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """To torch's own Python code, which runs outside of all modes, what torch takes it for."""
        return SHOWN if torch._C._is_torch_function_mode_enabled() else HIDDEN

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """Always."""
        return True

    @property
    def data(self) -> Tensor:
        """The same values, apart from the graph."""
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, other: Tensor) -> None:
        replace_data(self, other)

    def numpy(self, *, force: bool = False) -> Any:
        """NumPy sees no memory of a GPU."""
        return self.detach().cpu().numpy() if force else self.__array__()

    def __array__(self, dtype: Any = None) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        """Numbers of Python."""
        return self.held.tolist()

    def data_ptr(self) -> int:
        """The same where the memory is the same."""
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Likewise."""
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            twin = GpuTensor(self.held.clone()).requires_grad_(self.requires_grad)
            twin.__dict__.update(_hung_on(self))
            memo[id(self)] = twin
        found: Tensor = memo[id(self)]
        return found

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on the pretended GPU"


class GpuGenerator(torch.Generator):
    """Draws what a generator of the CPU with its seed draws."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it may draw."""
        return SHOWN


GENERATORS: WeakValueDictionary[int, GpuGenerator] = WeakValueDictionary()
"""Those of the GPU, by address: what dispatches is given them in other objects."""


def gpu_generator() -> GpuGenerator:
    """A new one."""
    made = GpuGenerator()
    GENERATORS[_address(made)] = made
    return made


def require_generator(generator: torch.Generator | None, *, gpu: bool) -> None:
    """Raises MixedDevicesError: it is of the other device."""
    if generator is not None and (_address(generator) in GENERATORS) is not gpu:
        want, found = ("cuda", "cpu") if gpu else ("cpu", "cuda")
        raise MixedDevicesError(f"Expected a '{want}' generator but found one of '{found}'")


def _address(generator: torch.Generator) -> int:
    address: int = generator._cdata  # type: ignore[attr-defined]
    return address


def replace_data(one: Tensor, other: Tensor) -> None:
    """`one.data = other`, by which parameters also change their device."""
    if isinstance(one, GpuTensor) and isinstance(other, GpuTensor):
        set_data(one, other)
        one.held = other.held
    elif isinstance(one, GpuTensor) or isinstance(other, GpuTensor):
        _exchange(one, other.detach())
    else:
        set_data(one, other)


def set_data(one: Tensor, other: Tensor) -> None:
    """As torch does it, for two of one kind."""
    Tensor.data.__set__(one, other)  # type: ignore[attr-defined]


def _exchange(one: Tensor, other: Tensor) -> None:
    """Make one object the other kind of tensor, with all that hangs on it."""
    hung, grad = _hung_on(one), one.grad
    other.requires_grad_(one.requires_grad)
    if isinstance(one, nn.Parameter):
        other = nn.Parameter(other, requires_grad=one.requires_grad)
    torch.utils.swap_tensors(one, other)
    one.__dict__.update(hung)
    one.grad = None if grad is None else grad.to(one.device)


def _hung_on(tensor: Tensor) -> dict[str, Any]:
    """The attributes that Python code gave it."""
    return {key: value for key, value in tensor.__dict__.items() if key != "held"}


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, one tensor of it at least being on the GPU."""
    tensors: list[Tensor] = []
    plain = [_mapped(lambda leaf: _plain(leaf, tensors), part) for part in args]
    named = {name: _mapped(lambda leaf: _plain(leaf, tensors), x) for name, x in kwargs.items()}
    _require_allowed(function, args, tensors)
    require_generator(kwargs.get("generator"), gpu=True)
    result = function(*plain, **named)
    device = kwargs.get("device")
    if device is not None and device.type == "cpu":
        return result
    given = {id(one.held): one for one in tensors if isinstance(one, GpuTensor)}
    return _mapped(lambda leaf: _on_gpu(leaf, given), result)


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with each leaf changed; torch's own function takes much longer."""
    if isinstance(tree, list | tuple):
        return type(tree)([_mapped(change, part) for part in tree])
    return change(tree)


def _plain(leaf: Any, tensors: list[Tensor]) -> Any:
    """The same on the CPU; `tensors` takes in what is one."""
    if isinstance(leaf, Tensor):
        tensors.append(leaf)
        return leaf.held if isinstance(leaf, GpuTensor) else leaf
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _on_gpu(leaf: Any, given: dict[int, GpuTensor]) -> Any:
    """A result; what was worked on in place is the tensor itself, perhaps of another shape."""
    if not isinstance(leaf, Tensor):
        return leaf
    one = given.get(id(leaf))
    if one is None:
        return GpuTensor(leaf)
    if one.shape != leaf.shape or one.stride() != leaf.stride():
        set_data(one, GpuTensor(leaf))
    return one


def _require_allowed(function: Any, args: Any, tensors: Sequence[Tensor]) -> None:
    """Refuse what a GPU refuses.

    Raises:
        NotImplementedError: torch has it for CPUs alone.
        MixedDevicesError: a tensor is on the CPU, and no number where numbers are taken.
    """
    name = function._schema.name
    if not _for_gpus(function):
        raise NotImplementedError(f"could not run '{name}' with arguments from the 'CUDA' backend")
    others = [one for one in tensors if not isinstance(one, GpuTensor)]
    if not others or name in CROSSINGS or (name in INDEXING and isinstance(args[0], GpuTensor)):
        return
    scaled = torch.Tag.pointwise in function.tags or name in SCALED
    if not scaled or any(one.dim() for one in others):
        raise MixedDevicesError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}"
        )


@functools.cache
def _for_gpus(function: Any) -> bool:
    """Whether GPUs have that operation; a torch without support of them does not know."""
    if not torch.backends.cuda.is_built():
        return True
    return torch._C._dispatch_has_computed_kernel_for_dispatch_key(function.name(), "CUDA")
