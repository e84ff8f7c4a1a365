"""Criteria: from the evidence about one layer to a score per weight, larger = keep.

To add one, write a function in a file here and name it in the table. Importing this package
imports no torch.
"""

from dataclasses import replace

from snnprune.criteria.criterion import Criterion, Evidence, Needs, Scale, criterion
from snnprune.errors import InputError
from snnprune.registry import Registry, Row
from snnprune.user_code import guarded

CRITERIA = Registry(
    kind="criterion",
    group="snnprune.criteria",
    rows={
        "sf": Row(
            target="snnprune.criteria.spiking:sf",
            summary="probability that removing the weight changes a spike (Eq. 12)",
        ),
        "magnitude": Row(target="snnprune.criteria.weight:magnitude", summary="|w|"),
        "random": Row(target="snnprune.criteria.weight:random", summary="uniform, by seed"),
    },
)


def load_criterion(name: str, *, field: str = "--criterion") -> Criterion:
    """The criterion of that name, or of a user's own file.

    Raises:
        InputError: there is none, or it is not made by the `criterion` decorator.
    """
    found = CRITERIA.load(name, field=field)
    if not isinstance(found, Criterion):
        raise InputError(
            f"{name} is not a criterion", field=field, hint="decorate it with @criterion(...)"
        )
    return replace(found, function=guarded(found.function, name, field=field))


__all__ = ["CRITERIA", "Criterion", "Evidence", "Needs", "Scale", "criterion", "load_criterion"]
