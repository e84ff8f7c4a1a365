"""How to read the calls that carry a normalisation or a threshold."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from snnprune.network.naming import name_of

# By name, because TorchScript calls them by other functions: whether the sides change places, and
# whether equal sides count.
COMPARISONS = {
    "gt": (False, False),
    "greater": (False, False),
    "ge": (False, True),
    "greater_equal": (False, True),
    "lt": (True, False),
    "less": (True, False),
    "le": (True, True),
    "less_equal": (True, True),
}
NORM_SIGNATURE = inspect.signature(functional.batch_norm)


@dataclass(frozen=True, kw_only=True)
class NormCall:
    """The tensors of one `batch_norm` call."""

    input: Tensor
    mean: Tensor | None
    variance: Tensor | None
    scale: Tensor | None
    eps: float
    training: bool
    """Whether the batch's own statistics are taken, whatever the running ones are."""


def norm_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NormCall | None:
    """What a call says if it normalises over the batch, else None."""
    if function is not functional.batch_norm:
        return None
    given = NORM_SIGNATURE.bind(*args, **kwargs)
    given.apply_defaults()
    values = given.arguments
    return NormCall(
        input=values["input"],
        mean=values["running_mean"],
        variance=values["running_var"],
        scale=values["weight"],
        eps=values["eps"],
        training=values["training"],
    )


@dataclass(frozen=True, kw_only=True)
class ComparisonCall:
    """The two sides of a comparison of numbers: true, or 1, where `above` is above `below`."""

    above: Any
    below: Any
    also_equal: bool


def comparison_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ComparisonCall | None:
    """What a call says if it compares, as every way of firing does somewhere, else None."""
    name = name_of(function)
    if name in ("sign", "sgn") and args:
        return ComparisonCall(above=args[0], below=0.0, also_equal=False)
    sides = [*args, *(kwargs[side] for side in ("input", "other", "values") if side in kwargs)]
    if len(sides) < 2:
        return None
    if name == "heaviside":
        return ComparisonCall(above=sides[0], below=0.0, also_equal=bool((sides[1] > 0).all()))
    if name not in COMPARISONS:
        return None
    turned, also_equal = COMPARISONS[name]
    above, below = reversed(sides[:2]) if turned else sides[:2]
    return ComparisonCall(above=above, below=below, also_equal=also_equal)


def takes_some(args: tuple[Any, ...]) -> bool:
    """Whether an index picks by a tensor or a list, and so may change what lies where."""
    index = args[1] if len(args) > 1 and isinstance(args[1], tuple) else args[1:2]
    return any(isinstance(part, Tensor | list) for part in index)


def other_side(args: tuple[Any, ...], kwargs: dict[str, Any], this: Tensor) -> Any:
    """What an operation on two combines `this` with."""
    sides = [*args, *(kwargs[side] for side in ("input", "other") if side in kwargs)][:2]
    return next((side for side in sides if side is not this), this)
