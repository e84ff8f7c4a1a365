"""From the weight that a call applies to the parameter that it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from snnprune.graph.layout import Layout
from snnprune.graph.origins import MOVES, VIEWS, Origin

KEEPS_ORDER = frozenset(
    {"flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone"}
    | {"detach", "to", "float", "half", "bfloat16", "double", "type_as", "_to_copy", "data"}
    | {"alias", "type", "view_as", "_unsafe_view", "ravel", "reshape_as", "__getitem__", "cpu"}
    | {"cuda", "requires_grad", "mul", "div", "expand", "expand_as"}
)
"""Operations after which as many values lie as they did."""


@dataclass(frozen=True, kw_only=True)
class AppliedWeight:
    """The parameter that a weight is, or is an elementwise function of."""

    key: str
    layout: Layout
    """From the parameter to the weight as the call has it."""


@dataclass(frozen=True, kw_only=True)
class WeightPieces:
    """Parameters of which a weight is a piece, or the pieces of which it is put together."""

    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComposedWeight:
    """Parameters that a weight is made of as a whole: one of theirs changes many of its values."""

    keys: tuple[str, ...]
    how: str
    """The last operation, and the function in whose code it is."""


def find_applied_weight(
    origin: Origin, shape: Sequence[int], functions: Collection[str] = ()
) -> AppliedWeight | WeightPieces | ComposedWeight | None:
    """What a weight of that origin and `shape` is; None if no parameter had a part in it.

    `functions` are parameters that the network applies an elementwise function with f(0) = 0 to.
    """
    if origin.data:
        return None
    layout = origin.layout
    if layout is not None and origin.parameter and _is_layout_of(layout, shape):
        return AppliedWeight(key=origin.parameter, layout=layout)
    keys = tuple(find_parameters_behind(origin))
    if not keys:
        return None
    shaped = [key for key in keys if key in functions]
    if len(shaped) == 1:
        return AppliedWeight(key=shaped[0], layout=Layout.of(shape))
    if is_only_moved(origin):
        return WeightPieces(keys=keys)
    how = origin.name.lstrip("_")
    return ComposedWeight(keys=keys, how=f"{origin.written} ({how})" if origin.written else how)


def _is_layout_of(layout: Layout, shape: Sequence[int]) -> bool:
    """Whether a layout gives a weight of that shape; one of one dimension may be a mere factor."""
    is_matrix = len(layout.held) > 1 or len(shape) > 1
    return is_matrix and layout.shape == _match_shape(layout.shape, shape)


def _match_shape(known: tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...]:
    """The known shape where it is `shape` but for dimensions of one."""
    same = [one for one in known if one > 1] == [one for one in shape if one > 1]
    return known if same else tuple(shape)


def is_only_moved(origin: Origin) -> bool:
    """Whether parameters were put together or taken apart to make it, and no value changed."""
    steps = [origin]
    while steps:
        here = steps.pop()
        if here.parents and here.name not in VIEWS | MOVES:
            return False
        steps += here.parents
    return True


def find_parameters_behind(origin: Origin) -> list[str]:
    """The parameters that a weight is made of, those that are weights themselves."""
    found, steps, seen = [], [origin], set[Origin]()
    while steps:
        here = steps.pop()
        if here in seen:
            continue
        seen.add(here)
        steps += here.parents
        if here.parameter and not here.parents and here.layout and len(here.layout.held) > 1:
            found.append(here.parameter)
    return sorted(found)
