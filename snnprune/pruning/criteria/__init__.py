"""Criteria: from the evidence about one layer to a score per weight, larger = keep.

To add one, write a function in a file here and name it in the table. Importing this package
imports no torch.
"""

from dataclasses import replace

from snnprune.errors import InputError
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function, is_reference, require_own
from snnprune.pruning.criteria.criterion import Criterion, Evidence, Needs, Scale, criterion

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
