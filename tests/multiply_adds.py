"""Counts the multiply-adds of convolutions and products of matrices, as a pass makes them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class CountingOperations(TorchDispatchMode):
    """Adds up what is done to tensors that have values."""

    def __init__(self, counts: Mapping[Any, Callable[..., int]]) -> None:
        """`counts` gives the FLOPs of each operation, as torch's `flop_registry` does."""
        super().__init__()
        self.counts, self.done = counts, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        count = self.counts.get(function._overloadpacket)
        if count is not None and not any(isinstance(x, Tensor) and x.is_meta for x in args):
            self.done += count(*args, **(kwargs or {}), out_val=result) // 2
        return result
