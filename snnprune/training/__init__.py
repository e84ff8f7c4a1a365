"""The loops, each to be read from top to bottom, and the steps that they are made of.

Here: what `imp` can be asked for, methods, and the trainings that a run of them is made of; and
the losses that a recipe may name.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnprune.plugins.names import Registry, RegistryRow
from snnprune.recipe.sections import ImpSection
from snnprune.report.curves import DENSE

if TYPE_CHECKING:
    from snnprune.graph.network import Network
    from snnprune.masks import Masks


EDGE_POPUP = "edge-popup"
GRADUAL, PRUNED, FINETUNED = "gradual", "pruned", "finetuned"


@dataclass(frozen=True, kw_only=True)
class TicketMethod:
    """A way of choosing what to prune in a round."""

    criterion: str
    returning: bool = False
    """Whether weights of encoding and Linear layers may return (SF-IMP-2)."""


METHODS: Mapping[str, TicketMethod] = {
    "imp": TicketMethod(criterion="magnitude"),
    "sf-imp-1": TicketMethod(criterion="sf"),
    "sf-imp-2": TicketMethod(criterion="sf", returning=True),
}
"""Any other name is that of a criterion: `random` gives random tickets."""


LOSSES = Registry(
    kind="loss",
    group="snnprune.losses",
    rows={
        "cross-entropy": RegistryRow(
            target="snnprune.training.losses:cross_entropy",
            summary="mean over time of the cross-entropies of each step",
        ),
        "mean": RegistryRow(
            target="snnprune.training.losses:cross_entropy_of_mean",
            summary="cross-entropy of the logits' mean over time",
        ),
        "mse-rate": RegistryRow(
            target="snnprune.training.losses:mse_rate",
            summary="squared distance of the outputs' mean over time from correct and incorrect",
        ),
        "mse-count": RegistryRow(
            target="snnprune.training.losses:mse_count",
            summary="the same of their sum over time, divided by T, as SLAYER and snnTorch",
        ),
        "tet": RegistryRow(
            target="snnprune.training.losses:tet",
            summary="cross-entropy and, by lamb, squared distance from target; Deng et al. 2022",
        ),
    },
)


def load_method(name: str) -> TicketMethod:
    """The method of that name, or iterative pruning by the criterion of that name."""
    return METHODS.get(name) or TicketMethod(criterion=name)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One training of a run: the dense network, or a round of a method."""

    method: str
    round: int
    """0 is the dense network, which all methods share."""
    sparsity: float
    epochs: int
    folder: str
    """Where its files go in the run folder."""
    last: bool
    """Whether no other round of the method follows."""

    @property
    def label(self) -> str:
        """What progress calls it."""
        return DENSE if self.round == 0 else f"{self.method} {self.sparsity:.1%}"


def list_rounds(section: ImpSection, epochs: int) -> list[Round]:
    """The trainings of a run whose dense network is trained for `epochs`, in order."""
    targets = section.targets
    dense = Round(method=DENSE, round=0, sparsity=0.0, epochs=epochs, folder="round-00", last=False)
    length = section.round_epochs or epochs - section.rewind_epoch
    return [
        dense,
        *(
            Round(
                method=method,
                round=number,
                sparsity=sparsity,
                epochs=length,
                folder=_name_folder(section, method, number),
                # tickets that the dense run gave do not come from each other
                last=section.drawn_while_dense or number == len(targets),
            )
            for method in section.methods
            for number, sparsity in enumerate(targets, start=1)
        ),
    ]


def split_returning(network: Network, masks: Masks) -> tuple[Masks, Masks]:
    """`masks` of SF-IMP-2 as those that are held and those that act in the forward pass alone.

    The latter are of the layers that sf does not suit: the encoding layer and Linear layers
    without BatchNorm (decision A8 of docs/criteria).
    """
    from snnprune.pruning.score import why_without_spikes

    passing = {key for key in masks if why_without_spikes(network.layers[key]) is not None}
    return (
        {key: mask for key, mask in masks.items() if key not in passing},
        {key: mask for key, mask in masks.items() if key in passing},
    )


def _name_folder(section: ImpSection, method: str, number: int) -> str:
    """Rounds of several methods have a folder of their method around them."""
    name = f"round-{number:02}"
    if len(section.methods) == 1:
        return name
    return f"{method.replace('/', '-').replace(':', '-').lstrip('-.')}/{name}"
