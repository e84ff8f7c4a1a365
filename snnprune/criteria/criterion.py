"""What a criterion is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.calibration import LayerStatistics

Needs = Literal["weight", "inputs", "spikes"]
"""The weight alone; also the rates of its inputs; also the neuron that it drives."""
Scale = Literal["linear", "log"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one layer."""

    weight: Tensor
    """(out, in / groups, *kernel), float32 or float64."""
    key: str
    groups: int = 1
    statistics: LayerStatistics | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A scoring function and what it needs; call it to get scores in the weight's shape."""

    name: str
    function: Callable[[Evidence], Tensor]
    needs: Needs
    scale: Scale

    def __call__(self, evidence: Evidence) -> Tensor:
        return self.function(evidence)


def criterion(
    *, needs: Needs, scale: Scale = "linear"
) -> Callable[[Callable[[Evidence], Tensor]], Criterion]:
    """Make a criterion of a function from `Evidence` to scores.

    A layer that lacks what the criterion needs is scored by magnitude instead, and the report says
    so. `scale` tells whether the scores are logarithms.
    """

    def decorate(function: Callable[[Evidence], Tensor]) -> Criterion:
        return Criterion(name=function.__name__, function=function, needs=needs, scale=scale)

    return decorate
