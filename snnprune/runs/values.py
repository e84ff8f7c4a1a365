"""What a state says, believed only where it can be so: a stranger may have written it.

Everything here raises ValueError or LookupError, which `taking_up` tells of with the file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor


def count(known: Mapping[str, Any], name: str, *, most: int | None = None) -> int:
    """A whole number from 0 on, and up to `most`."""
    value = known[name]
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise ValueError(f"{name} cannot be {_told(value)}")
    return value


def number(known: Mapping[str, Any], name: str) -> float:
    """A number that is neither NaN nor infinite."""
    value = known[name]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} cannot be {_told(value)}")
    return float(value)


def require_names(known: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a table with other names than these."""
    if set(known) != set(names):
        raise ValueError(f"it does not say {', '.join(names)} alone")


def require_alike(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse tensors with other names, shapes or types than those that are wanted."""
    if tensors.keys() != wanted.keys():
        odd = min(tensors.keys() ^ wanted.keys())
        raise ValueError(f"{odd} is {'missing' if odd in wanted else 'too many'}")
    for name, tensor in tensors.items():
        like = wanted[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"{name} is {tensor.dtype} of shape {list(tensor.shape)}, "
                f"wanted {like.dtype} of shape {list(like.shape)}"
            )


def _told(value: object) -> str:
    text = repr(value) if not isinstance(value, int) else f"{value:,}"
    return text if len(text) < 80 else f"{text[:80]}..."
