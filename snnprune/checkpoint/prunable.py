"""Which tensors of a file are weights that can be pruned, when the network is not at hand."""

from collections.abc import Mapping

from torch import Tensor


def is_prunable(name: str, tensor: Tensor) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return _is_weight(name, tensor) and tensor.is_floating_point() and not is_tiny(tensor)


def is_tiny(tensor: Tensor) -> bool:
    """Whether it holds 8-bit or 4-bit floats, which torch stores and does not compute with."""
    return tensor.is_floating_point() and tensor.itemsize == 1


def tiny_weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights of 8-bit floats that would be prunable in any other type."""
    return [name for name, one in tensors.items() if _is_weight(name, one) and _is_float8(one)]


def other_weights(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What else has the name and shape of a weight and is none that can be pruned: why, by key."""
    found = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if _is_weight(name, tensor) and not is_prunable(name, tensor) and not _is_float8(tensor)
    }
    return found | dict.fromkeys(_halves(tensors), "without its mask")


def _halves(tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights of torch.nn.utils.prune whose mask is not there, and which no norm makes."""
    return [
        name
        for name in tensors
        if name.endswith("weight_orig")
        and not tensors.keys() & {name[:-5], f"{name[:-5]}_mask", f"{name[:-5]}_u"}
    ]


def _is_float8(tensor: Tensor) -> bool:
    return str(tensor.dtype).startswith("torch.float8")


def _is_weight(name: str, tensor: Tensor) -> bool:
    return name.endswith("weight") and 2 <= tensor.dim() <= 5


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
