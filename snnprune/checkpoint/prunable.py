"""Which tensors of a file are weights that can be pruned, when the network is not at hand."""

from collections.abc import Mapping

from torch import Tensor


def is_prunable(name: str, tensor: Tensor) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return _is_weight(name, tensor) and not is_tiny(tensor)


def is_tiny(tensor: Tensor) -> bool:
    """Whether it holds 8-bit floats, which torch stores and does not compute with."""
    return tensor.is_floating_point() and tensor.itemsize == 1


def tiny_weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights that would be prunable in any other type."""
    return [name for name, one in tensors.items() if _is_weight(name, one) and is_tiny(one)]


def _is_weight(name: str, tensor: Tensor) -> bool:
    return name.endswith("weight") and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


def prunable_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the prunable weights, in the file's order; one for each that has several."""
    same = tied_tensors(tensors)
    first: dict[tuple[str, ...], str] = {}
    for name, tensor in tensors.items():
        if is_prunable(name, tensor):
            first.setdefault(same[name], name)
    return tuple(first.values())


def tied_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For each tensor, by name, all names of the same memory in the same shape."""
    together: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        stored = tensor.numel() > 0 and not tensor.is_meta
        together.setdefault(place if stored else name, []).append(name)
    return {name: tuple(names) for names in together.values() for name in names}
