"""What a run that prunes finds: networks of some sparsity, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnprune.evaluation import Evaluation
from snnprune.loops.setup import Setup
from snnprune.mask import Masks, prunable, pruned
from snnprune.network import Network
from snnprune.recipe import Recipe
from snnprune.report import about_evaluation

KIND = "ticket"


@dataclass(frozen=True, kw_only=True)
class Tickets:
    """A finished run of `imp` or `search`."""

    recipe: Recipe
    """With what the data filled in."""
    rows: tuple[Mapping[str, Any], ...]
    """One for each network that was measured, as `ticket` makes them."""


def ticket(
    setup: Setup,
    masks: Masks,
    *,
    method: str,
    asked: float,
    validation_accuracy: float | None,
    measured: Evaluation,
    round: int = 0,
) -> dict[str, Any]:
    """The row of metrics about a network; `asked` is the sparsity that was aimed at.

    `measured` is on test images; where there are none, on those that say most then.
    """
    tested = measured.images == "test"
    return {
        "kind": KIND,
        "method": method,
        "round": round,
        "sparsity_asked": asked,
        "pruned": pruned(masks),
        "prunable": prunable(masks),
        "parameters": parameters(setup.network),
        "validation_accuracy": validation_accuracy,
        "test": about_evaluation(measured) if tested else None,
        "measured": None if tested else about_evaluation(measured),
        "layers": [
            {"weight": key, "kept": int(mask.sum()), "weights": mask.numel()}
            for key, mask in masks.items()
        ],
    }


def parameters(network: Network) -> int:
    """How many parameters the network has, prunable or not."""
    return sum(parameter.numel() for parameter in network.module.parameters())


def tickets_in(recipe: Recipe, rows: list[dict[str, Any]]) -> Tickets:
    """The tickets among the rows of a run."""
    return Tickets(recipe=recipe, rows=tuple(row for row in rows if row["kind"] == KIND))
