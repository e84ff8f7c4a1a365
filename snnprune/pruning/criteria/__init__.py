"""Criteria: from the evidence about one layer to a score per weight, larger = keep.

To add one, write a function in a file here and name it in the table. Importing this package
imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from snnprune.errors import InputError, UsageError, did_you_mean
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function, is_reference, require_own

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


CRITERIA = Registry(
    kind="criterion",
    group="snnprune.criteria",
    rows={
        "sf": RegistryRow(
            target="snnprune.pruning.criteria.spiking:sf",
            summary="probability that removing the weight changes a spike (Eq. 12)",
        ),
        "sf-std": RegistryRow(
            target="snnprune.pruning.criteria.spiking:sf_std",
            summary="sf once means are given back: the input's standard deviation for its rate",
        ),
        "sf-steps": RegistryRow(
            target="snnprune.pruning.criteria.spiking:sf_steps",
            summary="sf with a Gaussian of the membrane for each time step",
        ),
        "sf-histogram": RegistryRow(
            target="snnprune.pruning.criteria.spiking:sf_histogram",
            summary="sf with the density counted around the threshold",
        ),
        "magnitude": RegistryRow(
            target="snnprune.pruning.criteria.weight:magnitude", summary="|w|"
        ),
        "wanda": RegistryRow(
            target="snnprune.pruning.criteria.weight:wanda",
            summary="|w| times the norm of its input",
        ),
        "taylor": RegistryRow(
            target="snnprune.pruning.criteria.weight:taylor",
            summary="|w dL/dw|, the first-order change of the loss",
        ),
        "fisher": RegistryRow(
            target="snnprune.pruning.criteria.weight:fisher",
            summary="w^2 E[(dL/dw)^2] / 2, squares sample by sample",
        ),
        "snip": RegistryRow(
            target="snnprune.pruning.criteria.weight:snip",
            summary="sensitivity of the loss to the connection; ranks as taylor",
        ),
        "grasp": RegistryRow(
            target="snnprune.pruning.criteria.weight:grasp",
            summary="what gradient flow loses with the weight, w (H g)",
        ),
        "synflow": RegistryRow(
            target="snnprune.pruning.criteria.weight:synflow",
            summary="|w| dR/d|w|, the paths through the weight; of the data only the shape",
        ),
        "sf-loss": RegistryRow(
            target="snnprune.pruning.criteria.weight:sf_loss",
            summary="bound on the change of the loss through all spikes it carries",
        ),
        "obs": RegistryRow(
            target="snnprune.pruning.criteria.obs:obs",
            summary="what is lost when the rest of its row makes up for it (OBS)",
        ),
        "obs-membrane": RegistryRow(
            target="snnprune.pruning.criteria.obs:obs_membrane",
            summary="obs with inputs as a membrane adds them up",
        ),
        "sbc": RegistryRow(
            target="snnprune.pruning.criteria.obs:sbc",
            summary="Spiking Brain Compression: obs-membrane with the means left in",
        ),
        "sf-obs": RegistryRow(
            target="snnprune.pruning.criteria.obs:sf_obs",
            summary="chance that a spike changes though the rest of its row makes up for it",
        ),
        "random": RegistryRow(
            target="snnprune.pruning.criteria.weight:random", summary="uniform, by seed"
        ),
    },
)


def load_criterion(name: str, *, field: str = "--criterion") -> Criterion:
    """The criterion of that name, or of a user's own file; it goes by the name that is given.

    Raises:
        InputError: there is none, it is not made by the `criterion` decorator, or its function is
            not the user's own.
    """
    found = CRITERIA.load(name, field=field)
    if not isinstance(found, Criterion):
        raise InputError(
            f"{name} is not a criterion", field=field, hint="decorate it with @criterion(...)"
        )
    if is_reference(name):
        require_own(found.function, name, field=field)
    return replace(found, name=name, function=guard_function(found.function, name, field=field))


__all__ = ["CRITERIA", "Criterion", "Evidence", "Needs", "Scale", "criterion", "load_criterion"]
