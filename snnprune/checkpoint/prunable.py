"""Which tensors of a file are weights that can be pruned, when the network is not at hand."""

import re
from collections.abc import Mapping

from torch import Tensor


def is_prunable(name: str, tensor: Tensor) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return _is_weight(name, tensor) and not is_tiny(tensor)


def is_tiny(tensor: Tensor) -> bool:
    """Whether it holds 8-bit floats, which torch stores and does not compute with."""
    return tensor.is_floating_point() and tensor.itemsize == 1


EMBEDDINGS = re.compile(r"(^|[._])(\w*embed\w*|wte|wpe|emb)(?=[._]|$)", re.IGNORECASE)
"""Names of tables of vectors, whose weights nothing multiplies."""


def left_alone(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensors of a file that are weights by their name and shape and are not pruned, and why.

    Of which layer a weight is, its partners may tell: what a LayerNorm scales by has a bias of its
    own shape, a convolution or linear layer one of a single dimension.
    """
    found = {}
    for name, tensor in tensors.items():
        if not 2 <= tensor.dim() <= 5:
            continue
        why = _why_left(name, tensor, tensors)
        if why is not None:
            found[name] = why
    return found


def _why_left(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> str | None:
    kind = str(tensor.dtype).removeprefix("torch.")
    if name.endswith("weight_orig"):
        mask = f"{name.removesuffix('_orig')}_mask"
        return None if mask in tensors else "its mask is not there"
    if not name.endswith("weight") or is_tiny(tensor):
        return None
    if not tensor.is_floating_point():
        return kind
    bias = tensors.get(f"{name.removesuffix('weight')}bias")
    if bias is not None and bias.shape == tensor.shape:
        return "its bias has the same shape: a normalisation"
    return "an embedding by its name" if EMBEDDINGS.search(name) else None


def tiny_weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights that would be prunable in any other type."""
    return [name for name, one in tensors.items() if _is_weight(name, one) and is_tiny(one)]


def _is_weight(name: str, tensor: Tensor) -> bool:
    return name.endswith("weight") and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


def prunable_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the prunable weights, in the file's order; one for each that has several."""
    same, others = tied_tensors(tensors), left_alone(tensors)
    first: dict[tuple[str, ...], str] = {}
    for name, tensor in tensors.items():
        if is_prunable(name, tensor) and name not in others:
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
