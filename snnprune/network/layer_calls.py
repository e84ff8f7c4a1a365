"""How to read the calls that apply a weight: convolutions, `linear`, products of matrices, einsum.

Whatever the call, a `LayerCall` has its tensors in one form: the input (..., in, *space) and the
weight (out, in / groups, *kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from snnprune.network.layout import Layout
from snnprune.network.links import CHANNEL_AXIS, LayerKind
from snnprune.network.naming import name_of

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
CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED_ARGUMENTS = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
# Where the two factors stand among the arguments; what is added to their product comes first.
PRODUCTS = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "tensordot"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), (1, 2)),
}
FACTORS = (("input", "self", "mat1", "batch1"), ("other", "mat2", "batch2", "vec"))
# One call runs a whole cell or sequence, so that nothing inside of it can be seen.
FUSED = frozenset(
    {f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")}
)


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

    def applied(self, x: Tensor, weight: Tensor, *, groups: int | None = None) -> Tensor:
        """What such a layer makes of `x` (samples, in, *space): (samples, out, *space).

        `weight` is (out, in / groups, *kernel), and `groups` are those of the call unless given.
        """
        groups = self.groups if groups is None else groups
        if self.kind == "linear":
            return _grouped(x, weight, groups)
        by_group = weight
        if self.kind.startswith("conv_transpose"):
            by_group = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return CALLS[self.kind](x, by_group, groups=groups, **self.geometry)


@dataclass(frozen=True, kw_only=True)
class Candidate:
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
        return once_of(self.raw)[0]


def candidates(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[Candidate]:
    """Each way to read a call as one that applies a weight."""
    if function in CONVOLUTIONS:
        yield _convolution(CONVOLUTIONS[function], _named(CONV_ARGUMENTS, args, kwargs))
    elif function in TRANSPOSED:
        yield _transposed(TRANSPOSED[function], _named(TRANSPOSED_ARGUMENTS, args, kwargs))
    elif function is functional.linear:
        yield _linear(_named(CONV_ARGUMENTS, args, kwargs))
    else:
        yield from _products(name_of(function), args, kwargs)


def addend(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a call adds to the product of two others, as `addmm` does; None if it adds nothing."""
    if PRODUCTS.get(name_of(function)) != (1, 2):
        return None
    return args[0] if args else kwargs.get("input", kwargs.get("self"))


def fused_weights(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[Any]:
    """The tensors that one call applies as weights unseen, as `lstm_cell` does."""
    if name_of(function) in FUSED:
        leaves = tree_leaves((args, kwargs))
        yield from (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() == 2)


def _grouped(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if groups == 1:
        return functional.linear(x, weight)
    by_group = weight.unflatten(0, (groups, -1))  # (groups, out / groups, in / groups)
    return torch.einsum("sgi,goi->sgo", x.unflatten(1, (groups, -1)), by_group).flatten(1)


def _named(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def _convolution(kind: LayerKind, given: Mapping[str, Any]) -> Candidate:
    raw, x = given["weight"], given["input"]
    return Candidate(
        raw=raw,
        other=x,
        layout=Layout.of(raw.shape),
        read=lambda: LayerCall(
            kind=kind,
            input=x,
            weight=raw,
            channels=CHANNEL_AXIS[kind],
            groups=given.get("groups", 1),
            geometry={name: given[name] for name in GEOMETRY if name in given},
        ),
    )


def _transposed(kind: LayerKind, given: Mapping[str, Any]) -> Candidate:
    raw, x, groups = given["weight"], given["input"], given.get("groups", 1)
    inputs, outputs, *kernel = raw.shape  # (in, out / groups, *kernel)
    layout = Layout(
        held=tuple(raw.shape),
        view=(groups, inputs // groups, outputs, *kernel),
        order=(0, 2, 1, *range(3, 3 + len(kernel))),
        shape=(groups * outputs, inputs // groups, *kernel),
    )
    return Candidate(
        raw=raw,
        other=x,
        layout=layout,
        read=lambda: LayerCall(
            kind=kind,
            input=x,
            weight=layout.weight(raw),
            channels=CHANNEL_AXIS[kind],
            groups=groups,
            geometry={name: given[name] for name in GEOMETRY if name in given},
        ),
    )


def _linear(given: Mapping[str, Any]) -> Candidate:
    raw, x = given["weight"], given["input"]
    if raw.dim() == 1:  # one output
        layout = Layout(
            held=tuple(raw.shape), view=(1, len(raw)), order=(0, 1), shape=(1, len(raw))
        )
    else:
        layout = Layout.of(raw.shape)
    return Candidate(
        raw=raw,
        other=x,
        layout=layout,
        read=lambda: LayerCall(
            kind="linear", input=x, weight=layout.weight(raw), channels=CHANNEL_AXIS["linear"]
        ),
    )


def _products(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Candidate]:
    if name == "einsum":
        found = _equation(args)
    elif name in ("__matmul__", "__rmatmul__"):
        first, second = args if name == "__matmul__" else reversed(args)
        found = _matmul(first, second)
    elif name in PRODUCTS:
        found = _of_factors(name, args, kwargs)
    else:
        return
    if found is not None:
        (first, letters), (second, others), out = found
        yield from _contraction(first, letters, second, others, out)
        yield from _contraction(second, others, first, letters, out)


Factor = tuple[Tensor, tuple[str, ...]]
"""A tensor, and a letter for each of its dimensions."""
Product = tuple[Factor, Factor, tuple[str, ...]]
"""Two factors, and the letters of what comes of them: those that are missing are summed over."""


def _of_factors(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Product | None:
    pair = []
    for place, names in zip(PRODUCTS[name], FACTORS, strict=True):
        by_name = next((kwargs[one] for one in names if one in kwargs), None)
        pair.append(args[place] if place < len(args) else by_name)
    first, second = pair
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    if name == "tensordot":
        return _tensordot(first, second, args[2] if len(args) > 2 else kwargs.get("dims", 2))
    if kwargs.get("alpha", 1) != 1:
        return None
    return _matmul(first, second)


def _matmul(first: Any, second: Any) -> Product | None:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    deepest = max(first.dim(), second.dim(), 2) - 2
    batch = [f"batch {place}" for place in range(deepest)]
    left = (*batch[deepest - max(first.dim() - 2, 0) :], *("row", "in")[-min(first.dim(), 2) :])
    right = (
        *batch[deepest - max(second.dim() - 2, 0) :],
        *("in", "column")[: min(second.dim(), 2)],
    )
    out = (*batch, *(letter for letter in ("row", "column") if letter in (*left, *right)))
    return (first, left), (second, right), out


def _tensordot(first: Tensor, second: Tensor, dims: Any) -> Product | None:
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (list(range(first.dim() - dims, first.dim())), list(range(dims)))
    ours, theirs = ([one] if isinstance(one, int) else list(one) for one in dims)
    left = [f"left {place}" for place in range(first.dim())]
    right = [f"right {place}" for place in range(second.dim())]
    for number, (here, there) in enumerate(zip(ours, theirs, strict=True)):
        left[here] = right[there] = f"sum {number}"
    out = tuple(letter for letter in (*left, *right) if not letter.startswith("sum"))
    return (first, tuple(left)), (second, tuple(right)), out


def _equation(args: tuple[Any, ...]) -> Product | None:
    """An einsum of two; its form with lists of numbers is not read."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = [*operands[0]]
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    ins, arrow, out = equation.replace(" ", "").partition("->")
    terms = ins.split(",")
    if not arrow:
        once = sorted(one for one in set(ins) - set(",.") if ins.count(one) == 1)
        out = ("..." if "..." in ins else "") + "".join(once)
    named = [_letters(term, one.dim()) for term, one in zip(terms, operands, strict=True)]
    deepest = max(
        (one.dim() - len(t.replace("...", "")) for t, one in zip(terms, operands, strict=True))
    )
    result = _letters(out, len(out.replace("...", "")) + ("..." in out) * deepest)
    return (operands[0], named[0]), (operands[1], named[1]), result


def _letters(term: str, dims: int) -> tuple[str, ...]:
    """A name for each dimension; those of an ellipsis are counted from its end."""
    before, dots, after = term.partition("...")
    hidden = dims - len(before) - len(after) if dots else 0
    return (*before, *(f"... {place}" for place in range(hidden, 0, -1)), *after)


def _contraction(
    raw: Tensor, own: tuple[str, ...], x: Tensor, others: tuple[str, ...], out: tuple[str, ...]
) -> Iterator[Candidate]:
    """The product of `raw` and `x`, read as one that applies `raw` as a weight, if that can be."""
    given = raw
    raw, places = once_of(given)
    own = tuple(own[place] for place in places)
    # in the order in which they lie in what goes in and comes out
    summed = [one for one in others if one in own and one not in out]
    made = [one for one in out if one in own and one not in others]
    groups = [one for one in own if one in others and one in out]
    free = [one for one in others if one not in own]
    length = dict(zip(own, raw.shape, strict=True)) | dict(zip(others, x.shape, strict=True))
    whole = (
        raw.dim() > 1
        and bool(summed)
        and len(set(own)) == len(own) == len(summed) + len(made) + len(groups)
        and len(set(others)) == len(others)
        and set(free) <= set(out)
        and all(own_length == length[one] for one, own_length in zip(own, raw.shape, strict=True))
    )
    if not whole:
        return
    many = prod(length[one] for one in groups)
    order = tuple(own.index(one) for one in (*groups, *made, *summed))
    layout = Layout(
        held=tuple(raw.shape),
        view=tuple(raw.shape),
        order=order,
        shape=(
            many * prod(length[one] for one in made),
            prod(length[one] for one in summed),
        ),
    )

    def laid(tensor: Tensor, letters: Sequence[str], last: Sequence[str]) -> Tensor:
        there = tensor.permute([letters.index(one) for one in (*free, *last)])
        return there.flatten(len(free)) if last else there.unsqueeze(-1)

    def returned(result: Tensor) -> Tensor:
        order = [*free, *groups, *made]
        return result.reshape([length[one] for one in order]).permute(
            [order.index(one) for one in out]
        )

    yield Candidate(
        raw=given,
        other=x,
        layout=layout,
        is_layer=False,
        across=x.dim() > 1 and others[0] in summed,
        read=lambda: LayerCall(
            kind="linear",
            input=laid(x, others, [*groups, *summed]),
            weight=layout.weight(raw),
            groups=many,
            arranged=lambda result: laid(result, out, [*groups, *made]),
            returned=returned,
            channels=out.index(made[0]) - len(out) if len(made) == 1 and many == 1 else None,
        ),
    )


def once_of(raw: Tensor) -> tuple[Tensor, list[int]]:
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
