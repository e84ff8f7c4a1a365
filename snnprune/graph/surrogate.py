"""A surrogate gradient for networks of somebody's own that have none where they spike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from snnprune.graph.calls import name_of, read_comparison_call

ALPHA = 2.0
CASTS = frozenset({"float", "double", "half", "bfloat16", "to", "type", "type_as"})
ARITHMETIC = frozenset({"mul", "multiply", "__mul__", "__rmul__", "add", "__add__", "__radd__"})
SHAPES = frozenset(
    {"view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "permute"}
    | {"transpose", "movedim", "contiguous", "clone"}
)


class SurrogateGradients(TorchFunctionMode):
    """In the block a number that is made of a comparison has the gradient of a smooth step.

    What is computed stays the same to the bit: 0 is added, which has the derivative
    α / (2 (1 + (π α z / 2)²)), α = 2, the ATan of Fang et al. 2021, arXiv 2007.05785; z is the
    distance of the membrane from its threshold, in units of a threshold that is a number and not 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self._distances: dict[int, tuple[Tensor, Tensor]] = {}
        """The results of comparisons, which are kept so that no other tensor takes their place,
        and how far above its threshold each membrane is."""

    def __exit__(self, *raised: Any) -> None:
        self._distances.clear()
        super().__exit__(*raised)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor) or not torch.is_grad_enabled():
            return result
        call = read_comparison_call(function, args, kwargs)
        if call is None:
            return self._hand_on(function, args, kwargs, result)
        distance = _measure_distance(call.above, call.below)
        if distance is None or distance.shape != result.shape:
            return result
        if result.dtype == torch.bool:
            return self._keep(result, distance)
        # torch has no derivative of heaviside; a sign goes from -1 to 1
        return result.detach() + (2 if name_of(function) in ("sign", "sgn") else 1) * _make_step(
            distance
        )

    def _keep(self, result: Tensor, distance: Tensor) -> Tensor:
        self._distances[id(result)] = (result, distance)
        return result

    def _find(self, value: Any) -> Tensor | None:
        found = self._distances.get(id(value))
        return None if found is None else found[1]

    def _hand_on(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Tensor,
    ) -> Tensor:
        """The result, with the gradient of the comparisons that it is made of."""
        found = [self._find(value) for value in args]
        name = name_of(function)
        if all(distance is None for distance in found):
            return result
        first = found[0]
        if name in SHAPES and first is not None and result.dtype == torch.bool:
            return self._keep(result, function(first, *args[1:], **kwargs))
        if not result.is_floating_point():
            return result
        if name in CASTS and first is not None:
            return result + _make_step(first).to(result.dtype)
        if name in ARITHMETIC:
            numbers = [
                value if distance is None else value.to(result.dtype) + _make_step(distance)
                for value, distance in zip(args, found, strict=True)
            ]
            again: Tensor = function(*numbers, **kwargs)
            return again
        if name == "where" and first is not None and len(args) == 3:
            apart = torch.as_tensor(args[1] - args[2], device=result.device).detach()
            return result + torch.nan_to_num(apart) * _make_step(first)
        return result


def _measure_distance(above: Any, below: Any) -> Tensor | None:
    """above - below in units of whichever is a number and not 0; None where none has a gradient."""
    asking = [
        isinstance(one, Tensor) and one.is_floating_point() and one.requires_grad
        for one in (above, below)
    ]
    if not any(asking):
        return None
    unit = next(filter(None, (_read_number(one) for one in (below, above))), 1.0)
    distance: Tensor = (above - below) / abs(unit)
    return distance


def _read_number(value: Any) -> float:
    """The value of a threshold that is one finite number, else 0."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.requires_grad:
            return 0.0
        value = float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _make_step(distance: Tensor) -> Tensor:
    """0 with the derivative of a smooth step."""
    step = torch.atan(math.pi / 2 * ALPHA * distance) / math.pi
    return step - step.detach()
