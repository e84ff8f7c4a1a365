"""The frame of every report, and the reports of run folders, which are read again."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from snnprune.quantities import Natural
from snnprune.report.schema.as_dict import closed
from snnprune.report.schema.parts import (
    Data,
    Epoch,
    Evaluation,
    Fault,
    File,
    Model,
    Summary,
    Ticket,
)


@closed
class Frame(TypedDict):
    """Keys of every report, beside the name of its command."""

    schema: Literal[1]
    tool_version: str
    command_line: str | None
    ok: bool
    error: NotRequired[Fault]
    inputs: list[File]
    seed: Natural
    device: str
    versions: dict[str, str]
    model: Model | None
    data: Data | None
    excluded: list[str]
    warnings: list[str]


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
