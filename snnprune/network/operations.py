"""How to read the calls that carry a weight, a normalisation or a threshold."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.network.links import LayerKind

LAYER_CALLS: dict[Callable[..., Any], LayerKind] = {
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    functional.conv1d: "conv1d",
    functional.conv2d: "conv2d",
    functional.conv3d: "conv3d",
    functional.linear: "linear",
}
GEOMETRY = ("stride", "padding", "dilation")
CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
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
SYNONYMS = {
    "__iadd__": "add",
    "__radd__": "add",
    "__isub__": "sub",
    "__rsub__": "rsub",
    "subtract": "sub",
    "__imul__": "mul",
    "__rmul__": "mul",
    "multiply": "mul",
    "__itruediv__": "div",
    "__truediv__": "div",
    "true_divide": "div",
    "divide": "div",
    "negative": "neg",
    "__and__": "bitwise_and",
    "__iand__": "bitwise_and",
}
NORM_SIGNATURE = inspect.signature(functional.batch_norm)


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """The tensors of one `conv` or `linear` call."""

    kind: LayerKind
    input: Tensor
    weight: Tensor
    groups: int
    geometry: Mapping[str, Any] = field(default_factory=dict)
    """Stride, padding and dilation of a convolution, as the call has them."""


@dataclass(frozen=True, kw_only=True)
class NormCall:
    """The tensors of one `batch_norm` call."""

    input: Tensor
    mean: Tensor | None
    variance: Tensor | None
    scale: Tensor | None
    eps: float


def layer_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LayerCall | None:
    """What a call says if it applies a weight, else None."""
    kind = LAYER_CALLS.get(function)
    if kind is None:
        return None
    given = dict(zip(CONV_ARGUMENTS, args, strict=False)) | kwargs
    groups = 1 if kind == "linear" else given.get("groups", 1)
    geometry = {name: given[name] for name in GEOMETRY if name in given and kind != "linear"}
    return LayerCall(
        kind=kind, input=given["input"], weight=given["weight"], groups=groups, geometry=geometry
    )


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


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called: `add`, also for `add_`, `+=` and `add.Tensor`; `T` for `x.T`."""
    name = str(getattr(function, "__name__", "?"))
    if name == "__get__":
        name = str(getattr(getattr(function, "__self__", None), "__name__", name))
    name = name.split(".")[0]
    return SYNONYMS.get(name) or (name if name.startswith("_") else name.rstrip("_"))


def takes_some(args: tuple[Any, ...]) -> bool:
    """Whether an index picks by a tensor or a list, and so may change what lies where."""
    index = args[1] if len(args) > 1 and isinstance(args[1], tuple) else args[1:2]
    return any(isinstance(part, Tensor | list) for part in index)


def other_side(args: tuple[Any, ...], kwargs: dict[str, Any], this: Tensor) -> Any:
    """What an operation on two combines `this` with."""
    sides = [*args, *(kwargs[side] for side in ("input", "other") if side in kwargs)][:2]
    return next((side for side in sides if side is not this), this)
