"""Running somebody's code in float64, in which rounding flips no spike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Doubling(TorchFunctionMode):
    """float64 wherever code asks for float32, as `(membrane > 0).float()` does."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        asked = torch.Tensor.double if func is torch.Tensor.float else func
        named = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return asked(*map(_doubled, args), **named)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """float64 in place of float32 for all that the block asks of torch."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Doubling():
            yield
    finally:
        torch.set_default_dtype(before)
