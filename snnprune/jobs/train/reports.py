"""What the reports of commands that train hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from snnprune.measure.quantities import Natural
from snnprune.report import curves
from snnprune.report.schema.as_dict import AsDict, closed
from snnprune.report.schema.parts import Evaluation, File, Frame
from snnprune.training.tickets import Epoch, Ticket

Point = Annotated[curves.PointRow, AsDict(name="Point")]
Summary = Annotated[
    curves.SummaryRow,
    AsDict(name="Summary", more={"dense": Point | None, "points": list[Point]}),
]


class Trained(Frame):
    recipe: dict[str, Any]
    epochs: list[Epoch]
    best: Epoch | None
    test: Evaluation | None
    tickets: list[Ticket]
    outputs: list[File]


@closed
class Train(Trained):
    command: Literal["train"]


Masks = TypedDict("Masks", {"from": str, "pruned": Natural, "prunable": Natural})


@closed
class Finetune(Trained):
    command: Literal["finetune"]
    before: Evaluation | None
    masks: Masks


@closed
class Tickets(Frame):
    command: Literal["imp", "search"]
    recipe: dict[str, Any]
    tickets: list[Ticket]
    summary: Summary
    outputs: list[File]
