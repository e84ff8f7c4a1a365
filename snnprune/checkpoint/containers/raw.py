"""The bytes that a tensor is stored as."""

import torch
from torch import Tensor


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor in the order of its elements, (bytes,) uint8.

    Of a contiguous tensor it is the memory itself, to be read into.
    """
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # one element may have any stride, which a view of bytes does not take
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)
