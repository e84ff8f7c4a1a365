"""How to read the calls that apply a weight: convolutions, `linear`, products of matrices, einsum.

Whatever the call, a `LayerCall` has its tensors in one form: the input (..., in, *space) and the
weight (out, in / groups, *kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from snnprune.graph.calls import (
    CONVOLUTIONS,
    GEOMETRY,
    TRANSPOSED,
    LayerCall,
    WeightCandidate,
    drop_repeats,
    name_of,
)
from snnprune.graph.network import CHANNEL_AXIS, LayerKind, Layout

# Where the two factors stand among the arguments; what is added to their product comes first.
PRODUCTS = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "tensordot"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), (1, 2)),
}
FACTORS = {
    (0, 1): (("input", "self"), ("other", "mat2", "vec")),
    (1, 2): (("mat1", "batch1", "mat"), ("mat2", "batch2", "vec")),
}


def iter_products(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[WeightCandidate]:
    """Each way to read a call of that name as a product that applies a weight."""
    if name == "einsum":
        found = _read_einsum(args)
    elif name in ("__matmul__", "__rmatmul__"):
        first, second = args if name == "__matmul__" else reversed(args)
        found = _read_matmul(first, second)
    elif name in PRODUCTS:
        found = _read_factors(name, args, kwargs)
    else:
        return
    if found is not None:
        (first, letters), (second, others), out = found
        yield from _iter_contractions(first, letters, second, others, out)
        yield from _iter_contractions(second, others, first, letters, out)


Factor = tuple[Tensor, tuple[str, ...]]
"""A tensor, and a letter for each of its dimensions."""
Product = tuple[Factor, Factor, tuple[str, ...]]
"""Two factors, and the letters of what comes of them: those that are missing are summed over."""


def _read_factors(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Product | None:
    pair, places = [], PRODUCTS[name]
    for place, names in zip(places, FACTORS[places], strict=True):
        by_name = next((kwargs[one] for one in names if one in kwargs), None)
        pair.append(args[place] if place < len(args) else by_name)
    first, second = pair
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    if name == "tensordot":
        return _read_tensordot(first, second, args[2] if len(args) > 2 else kwargs.get("dims", 2))
    if kwargs.get("alpha", 1) != 1:
        return None
    return _read_matmul(first, second)


def _read_matmul(first: Any, second: Any) -> Product | None:
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


def _read_tensordot(first: Tensor, second: Tensor, dims: Any) -> Product | None:
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


def _read_einsum(args: tuple[Any, ...]) -> Product | None:
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
    named = [_name_dimensions(term, one.dim()) for term, one in zip(terms, operands, strict=True)]
    deepest = max(
        (one.dim() - len(t.replace("...", "")) for t, one in zip(terms, operands, strict=True))
    )
    result = _name_dimensions(out, len(out.replace("...", "")) + ("..." in out) * deepest)
    return (operands[0], named[0]), (operands[1], named[1]), result


def _name_dimensions(term: str, dims: int) -> tuple[str, ...]:
    """A name for each dimension; those of an ellipsis are counted from its end."""
    before, dots, after = term.partition("...")
    hidden = dims - len(before) - len(after) if dots else 0
    return (*before, *(f"... {place}" for place in range(hidden, 0, -1)), *after)


def _iter_contractions(
    raw: Tensor, own: tuple[str, ...], x: Tensor, others: tuple[str, ...], out: tuple[str, ...]
) -> Iterator[WeightCandidate]:
    """The product of `raw` and `x`, read as one that applies `raw` as a weight, if that can be."""
    given = raw
    raw, places = drop_repeats(given)
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

    def lay_out(result: Tensor) -> Tensor:
        order = [*free, *groups, *made]
        return result.reshape([length[one] for one in order]).permute(
            [order.index(one) for one in out]
        )

    yield WeightCandidate(
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
            returned=lay_out,
            channels=out.index(made[0]) - len(out) if len(made) == 1 and many == 1 else None,
        ),
    )


def find_addend(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """What a call adds to the product of two others, as `addmm` does; None if it adds nothing."""
    if PRODUCTS.get(name_of(function)) != (1, 2):
        return None
    return args[0] if args else kwargs.get("input", kwargs.get("self"))


CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED_ARGUMENTS = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
# One call runs a whole cell or sequence, so that nothing inside of it can be seen.
FUSED = frozenset(
    {f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")}
)


def iter_candidates(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[WeightCandidate]:
    """Each way to read a call as one that applies a weight."""
    if function in CONVOLUTIONS:
        yield _read_convolution(
            CONVOLUTIONS[function], _name_arguments(CONV_ARGUMENTS, args, kwargs)
        )
    elif function in TRANSPOSED:
        yield _read_transposed(
            TRANSPOSED[function], _name_arguments(TRANSPOSED_ARGUMENTS, args, kwargs)
        )
    elif function is functional.linear:
        yield _read_linear(_name_arguments(CONV_ARGUMENTS, args, kwargs))
    else:
        yield from iter_products(name_of(function), args, kwargs)


def iter_fused_weights(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[Any]:
    """The tensors that one call applies as weights unseen, as `lstm_cell` does."""
    if name_of(function) in FUSED:
        leaves = tree_leaves((args, kwargs))
        yield from (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() == 2)


def _name_arguments(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def _read_convolution(kind: LayerKind, given: Mapping[str, Any]) -> WeightCandidate:
    raw, x = given["weight"], given["input"]
    return WeightCandidate(
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


def _read_transposed(kind: LayerKind, given: Mapping[str, Any]) -> WeightCandidate:
    raw, x, groups = given["weight"], given["input"], given.get("groups", 1)
    inputs, outputs, *kernel = raw.shape  # (in, out / groups, *kernel)
    layout = Layout(
        held=tuple(raw.shape),
        view=(groups, inputs // groups, outputs, *kernel),
        order=(0, 2, 1, *range(3, 3 + len(kernel))),
        shape=(groups * outputs, inputs // groups, *kernel),
    )
    return WeightCandidate(
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


def _read_linear(given: Mapping[str, Any]) -> WeightCandidate:
    raw, x = given["weight"], given["input"]
    if raw.dim() == 1:  # one output
        layout = Layout(
            held=tuple(raw.shape), view=(1, len(raw)), order=(0, 1), shape=(1, len(raw))
        )
    else:
        layout = Layout.of(raw.shape)
    return WeightCandidate(
        raw=raw,
        other=x,
        layout=layout,
        read=lambda: LayerCall(
            kind="linear", input=x, weight=layout.weight(raw), channels=CHANNEL_AXIS["linear"]
        ),
    )
