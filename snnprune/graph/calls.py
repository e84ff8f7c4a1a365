"""How to read the calls that carry a weight, a normalisation or a threshold, or that draw."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.graph.network import CHANNEL_AXIS, LayerKind, Layout

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
    "_threshold": "threshold",  # of torch.nn.functional
}


@lru_cache(maxsize=256)  # asked some times for every call of a pass
def name_of(function: Callable[..., Any]) -> str:
    """What a function is called: `add`, also for `add_`, `+=` and `add.Tensor`; `T` for `x.T`."""
    name = str(getattr(function, "__name__", "?"))
    if name == "__get__":
        name = str(getattr(getattr(function, "__self__", None), "__name__", name))
    name = name.split(".")[0]
    return SYNONYMS.get(name) or (name if name.startswith("_") else name.rstrip("_"))


CONVOLUTIONS: dict[Callable[..., Any], LayerKind] = {
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    functional.conv1d: "conv1d",
    functional.conv2d: "conv2d",
    functional.conv3d: "conv3d",
}
TRANSPOSED: dict[Callable[..., Any], LayerKind] = {
    functional.conv_transpose1d: "conv_transpose1d",
    functional.conv_transpose2d: "conv_transpose2d",
    functional.conv_transpose3d: "conv_transpose3d",
}
CALLS: dict[LayerKind, Callable[..., Tensor]] = {
    kind: function for function, kind in (CONVOLUTIONS | TRANSPOSED).items()
}
GEOMETRY = ("stride", "padding", "output_padding", "dilation")


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """The tensors of one call that applies a weight."""

    kind: LayerKind
    input: Tensor
    """(..., in, *space); (..., groups * in) where a linear layer has groups."""
    weight: Tensor
    """(out, in / groups, *kernel)"""
    groups: int = 1
    geometry: Mapping[str, Any] = field(default_factory=dict)
    """Stride, padding and dilation of a convolution, as the call has them."""
    arranged: Callable[[Tensor], Tensor] = field(default=lambda result: result)
    """From what the call gives to (..., out, *space)."""
    returned: Callable[[Tensor], Tensor] = field(default=lambda made: made)
    """And back."""
    channels: int | None = None
    """Where what the call gives has its channels, from the end; None if in several dimensions."""

    def numbers(self, current: Tensor) -> Tensor:
        """Which channel each value of what the call gave is of, in the shape of that."""
        arranged = self.arranged(current)
        axis = CHANNEL_AXIS[self.kind]
        numbers = torch.arange(arranged.shape[axis], dtype=torch.int32, device=current.device)
        shape = [1] * arranged.dim()
        shape[axis] = -1
        return self.returned(numbers.view(shape).expand(arranged.shape))

    @property
    def space(self) -> int:
        """How many dimensions of space its input has."""
        return self.weight.dim() - 2

    @property
    def samples(self) -> Tensor:
        """The input as (samples, in, *space), whatever stands before the channels."""
        return self.input.reshape(-1, *self.input.shape[self.input.dim() - 1 - self.space :])

    def apply_weight(self, x: Tensor, weight: Tensor, *, groups: int | None = None) -> Tensor:
        """What such a layer makes of `x` (samples, in, *space): (samples, out, *space).

        `weight` is (out, in / groups, *kernel), and `groups` are those of the call unless given.
        """
        groups = self.groups if groups is None else groups
        if self.kind == "linear":
            return _apply_grouped(x, weight, groups)
        by_group = weight
        if self.kind.startswith("conv_transpose"):
            by_group = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return CALLS[self.kind](x, by_group, groups=groups, **self.geometry)


@dataclass(frozen=True, kw_only=True)
class WeightCandidate:
    """A call that applies a weight, if what it names as one comes from a parameter."""

    raw: Tensor
    """The weight as the call has it."""
    other: Tensor
    """What it is applied to, as the call has it."""
    layout: Layout
    """From `raw` to the weight (out, in / groups, *kernel)."""
    read: Callable[[], LayerCall]
    is_layer: bool = True
    """Whether no other reading makes sense; a product of two matrices need not be a layer."""
    across: bool = False
    """Whether it adds up over the first dimension, which mostly is time or samples."""

    @property
    def once(self) -> Tensor:
        """The weight as the call has it, without the dimensions along which it is repeated."""
        return drop_repeats(self.raw)[0]


def _apply_grouped(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if groups == 1:
        return functional.linear(x, weight)
    by_group = weight.unflatten(0, (groups, -1))  # (groups, out / groups, in / groups)
    return torch.einsum("sgi,goi->sgo", x.unflatten(1, (groups, -1)), by_group).flatten(1)


def drop_repeats(raw: Tensor) -> tuple[Tensor, list[int]]:
    """A tensor without the dimensions along which it is repeated, and which ones are left."""
    places = [
        place
        for place, (length, stride) in enumerate(zip(raw.shape, raw.stride(), strict=True))
        if stride or length == 1
    ]
    with torch._C.DisableTorchFunction():
        for place in range(raw.dim() - 1, -1, -1):
            raw = raw if place in places else raw.select(place, 0)
    return raw, places


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


def read_norm_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NormCall | None:
    """What a call says if it normalises over the batch, else None."""
    return _read_batch_norm(*args, **kwargs) if function is functional.batch_norm else None


def _read_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,  # noqa: ARG001  # the signature is that of torch
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001  # likewise
    eps: float = 1e-5,
) -> NormCall:
    return NormCall(
        input=input,
        mean=running_mean,
        variance=running_var,
        scale=weight,
        eps=eps,
        training=training,
    )


@dataclass(frozen=True, kw_only=True)
class ComparisonCall:
    """The two sides of a comparison of numbers: true, or 1, where `above` is above `below`."""

    above: Any
    below: Any
    also_equal: bool


def read_comparison_call(
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


def is_partial_index(args: tuple[Any, ...]) -> bool:
    """Whether an index picks by a tensor or a list, and so may change what lies where."""
    index = args[1] if len(args) > 1 and isinstance(args[1], tuple) else args[1:2]
    return any(isinstance(part, Tensor | list) for part in index)


def get_other_operand(args: tuple[Any, ...], kwargs: dict[str, Any], this: Tensor) -> Any:
    """What an operation on two combines `this` with."""
    sides = [*args, *(kwargs[side] for side in ("input", "other") if side in kwargs)][:2]
    return next((side for side in sides if side is not this), this)


BY_BATCH, DROPPING = "by batch", "dropping"

_DROPOUTS = {
    getattr(functional, name): inspect.signature(getattr(functional, name))
    for name in (
        *("dropout", "dropout1d", "dropout2d", "dropout3d"),
        *("alpha_dropout", "feature_alpha_dropout"),
    )
}


def find_restless_reason(function: Callable[..., Any], args: Any, kwargs: Any) -> str | None:
    """`BY_BATCH` or `DROPPING` where a call mixes samples or draws, else None."""
    normed = read_norm_call(function, args, kwargs)
    if normed is not None:
        return BY_BATCH if normed.training or normed.variance is None else None
    signature = _DROPOUTS.get(function)
    if signature is None:
        return None
    given = signature.bind(*args, **kwargs)
    given.apply_defaults()
    return DROPPING if given.arguments["training"] and given.arguments["p"] > 0 else None


def describe_restless(found: Mapping[str, str], *, draws: bool) -> Iterator[str]:
    """A line for each kind of what was `found`, by module."""
    by_batch = [place for place, what in found.items() if what == BY_BATCH]
    dropping = [place for place, what in found.items() if what == DROPPING]
    if by_batch:
        yield (
            "BatchNorm by the batch's own mean and variance in eval mode: "
            f"{_format_places(by_batch)}; "
            "accuracy depends on what is in a batch, layers before it go by magnitude, and no "
            "repair reaches it"
        )
    if dropping:
        yield (
            f"dropout stays active in eval mode: {_format_places(dropping)}; "
            "left as the network has it, and drawn by --seed"
        )
    elif draws:
        yield "the network draws at random in eval mode; its draws are those of --seed"


def _format_places(places: list[str]) -> str:
    names = [place or "the network itself" for place in places]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
