"""What a criterion is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from snnprune.errors import UsageError
from snnprune.errors.text import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.measure.calibration import LayerStatistics
    from snnprune.measure.second_moments import Gram


Needs = Literal[
    "weight",
    "inputs",
    "spikes",
    "gradient",
    "squared-gradient",
    "absolute-gradient",
    "hessian-gradient",
    "flow",
    "gram",
    "membrane-gram",
]
"""What a criterion must know beside the weight: the rates of its inputs (`inputs`), also the neuron
that it drives (`spikes`), what a backward pass finds for each weight (see
`snnprune.measure.gradients`), or the second moments of its inputs (see
`snnprune.measure.second_moments`), as they are or as a membrane adds them up.
"""
Scale = Literal["linear", "log"]
SCALES = get_args(Scale)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one layer."""

    weight: Tensor
    """(out, in / groups, *kernel), float32 or float64."""
    key: str
    groups: int = 1
    statistics: LayerStatistics | None = None
    found: Tensor | None = None
    """What a backward pass found for each weight, in its shape, float64."""
    gram: Gram | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A scoring function and what it needs; call it to get scores in the weight's shape."""

    name: str
    function: Callable[[Evidence], Tensor]
    needs: Needs
    scale: Scale
    degree: int = 1
    """Scores grow as |w| to the power of this: 2 for energies, as of OBS."""

    def __call__(self, evidence: Evidence) -> Tensor:
        return self.function(evidence)


def criterion(
    *, needs: Needs, scale: Scale = "linear", degree: int = 1
) -> Callable[[Callable[[Evidence], Tensor]], Criterion]:
    """Make a criterion of a function from `Evidence` to scores.

    A layer that lacks what the criterion needs is scored by magnitude instead, and the report says
    so. `scale` tells whether the scores are logarithms, `degree` with which power of |w| they grow.

    Raises:
        UsageError: there are no such needs, or no such scale.
    """
    for what, given, known in (("needs", needs, get_args(Needs)), ("scale", scale, SCALES)):
        if given not in known:
            raise UsageError(
                f"a criterion has no {what} {given!r}", hint=did_you_mean(str(given), known)
            )

    def decorate(function: Callable[[Evidence], Tensor]) -> Criterion:
        return Criterion(
            # the name of a function has no dashes
            name=function.__name__.replace("_", "-"),
            function=function,
            needs=needs,
            scale=scale,
            degree=degree,
        )

    return decorate
