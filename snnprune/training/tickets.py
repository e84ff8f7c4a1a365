"""What a run that prunes finds: networks of some sparsity, measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter, ValidationError

from snnprune.graph.network import Network
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.measure import Natural, Share
from snnprune.measure.evaluation import Evaluation
from snnprune.recipe.schema import Recipe
from snnprune.report import describe_evaluation, schema
from snnprune.report.schema import AsDict
from snnprune.training import Round
from snnprune.training.early_bird import DrawnTicket
from snnprune.training.fit import EpochResult, Position
from snnprune.training.setup import TrainingSetup

KIND: Literal["ticket"] = "ticket"


@dataclass(frozen=True, kw_only=True)
class TicketLayer:
    """How many weights of a layer a ticket keeps."""

    weight: str
    kept: Natural
    weights: Natural


@dataclass(frozen=True, kw_only=True)
class TicketRow:
    """A network that was measured, as metrics and reports have it."""

    kind: Literal["ticket"] = KIND
    method: str
    round: Natural
    sparsity_asked: Share
    """That was aimed at."""
    pruned: Natural
    prunable: Natural
    parameters: Natural
    validation_accuracy: Share | None
    test: Mapping[str, Any] | None
    """An evaluation on test images."""
    measured: Mapping[str, Any] | None
    """On validation images, or training images, where there are no test images."""
    layers: Sequence[TicketLayer]


EarlyBird = Annotated[
    DrawnTicket,
    AsDict(
        name="EarlyBird",
        about="Of a ticket that was drawn while the dense network trained.",
        without=("masks", "weights"),
    ),
]
Ticket = Annotated[
    TicketRow,
    AsDict(
        name="Ticket",
        more={
            "k": NotRequired[Share],  # of `search`: the share kept, as papers on edge-popup call it
            "test": schema.Evaluation | None,
            "measured": NotRequired[schema.Evaluation | None],
        },
        before="pruned",
        last={"early_bird": NotRequired[EarlyBird]},
    ),
]
OF_EPOCH = {"train_accuracy": Share | None, "skipped": NotRequired[Natural]}
Epoch = Annotated[EpochResult, AsDict(name="Epoch", more=OF_EPOCH)]
EpochRow = Annotated[
    EpochResult,
    AsDict(
        name="EpochRow",
        more={
            **OF_EPOCH,
            "kind": Literal["epoch"],
            "method": NotRequired[str],
            "round": NotRequired[Natural],
        },
    ),
]
Row = Annotated[EpochRow | Ticket, Field(discriminator="kind")]
"""A line of `metrics.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class TicketResults:
    """A finished run of `imp` or `search`."""

    recipe: Recipe
    """With what the data filled in."""
    rows: tuple[Mapping[str, Any], ...]
    """One for each network that was measured, as `make_ticket_row` makes them."""


def make_ticket_row(
    setup: TrainingSetup,
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
    row = TicketRow(
        method=method,
        round=round,
        sparsity_asked=asked,
        pruned=count_pruned(masks),
        prunable=count_prunable(masks),
        parameters=count_parameters(setup.network),
        validation_accuracy=validation_accuracy,
        test=describe_evaluation(measured) if tested else None,
        measured=None if tested else describe_evaluation(measured),
        layers=[
            TicketLayer(weight=key, kept=int(mask.sum()), weights=mask.numel())
            for key, mask in masks.items()
        ],
    )
    return asdict(row)


def require_epochs(
    rows: Sequence[Mapping[str, Any]], at: Position, round_: Round | None = None
) -> None:
    """Refuse metrics that tell of other epochs than those before `at`; of `round_`, or of all.

    Raises:
        ValueError: they do, or hold what is no row. A training that was ended early has fewer.
    """
    try:
        _make_row_adapter().validate_python(rows, strict=True)  # "0.5" is no number
    except ValidationError as error:
        line = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise ValueError(f"the metrics hold what is no row: {line}") from error
    told = [row for row in rows if row["kind"] == "epoch" and _is_of(row, round_)]
    ended = round_ is not None and 0 < len(told) < at.epoch == round_.epochs
    odd = round_ is None and len(told) != len(rows)
    if odd or (len(told) != at.epoch and not ended):
        raise ValueError(f"the metrics tell of {len(told)} epochs, it is after {at.epoch}")


@functools.cache
def _make_row_adapter() -> TypeAdapter[Any]:
    """What the lines of metrics say."""
    return TypeAdapter(list[Row])


def _is_of(row: Mapping[str, Any], round_: Round | None) -> bool:
    """Whether a row is of the training of `round_`; without one, of the only training."""
    named = (row.get("method"), row.get("round"))
    return named == ((None, None) if round_ is None else (round_.method, round_.round))


def count_parameters(network: Network) -> int:
    """How many parameters the network has, prunable or not."""
    return sum(parameter.numel() for parameter in network.module.parameters())


def collect_tickets(recipe: Recipe, rows: list[dict[str, Any]]) -> TicketResults:
    """The tickets among the rows of a run."""
    return TicketResults(recipe=recipe, rows=tuple(row for row in rows if row["kind"] == KIND))
