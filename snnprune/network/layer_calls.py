"""How to read the calls that apply a weight: convolutions, `linear`, products of matrices, einsum.

Whatever the call, a `LayerCall` has its tensors in one form: the input (..., in, *space) and the
weight (out, in / groups, *kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from snnprune.network.calls import CONVOLUTIONS, GEOMETRY, TRANSPOSED, Candidate, LayerCall
from snnprune.network.layout import Layout
from snnprune.network.links import CHANNEL_AXIS, LayerKind
from snnprune.network.naming import name_of
from snnprune.network.products import products

CONV_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
TRANSPOSED_ARGUMENTS = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
# One call runs a whole cell or sequence, so that nothing inside of it can be seen.
FUSED = frozenset(
    {f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell")}
)


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
        yield from products(name_of(function), args, kwargs)


def fused_weights(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[Any]:
    """The tensors that one call applies as weights unseen, as `lstm_cell` does."""
    if name_of(function) in FUSED:
        leaves = tree_leaves((args, kwargs))
        yield from (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() == 2)


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
