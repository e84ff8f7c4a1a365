"""Which tensors of a file are weights that can be pruned, when the network is not at hand."""

from collections.abc import Mapping

from torch import Tensor


def is_prunable(name: str, tensor: Tensor) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return name.endswith("weight") and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


def prunable_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the prunable weights, in the file's order."""
    return tuple(name for name, tensor in tensors.items() if is_prunable(name, tensor))
