"""Parts that reports of several commands have.

Counts are stored; rates and shares are in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from snnprune.measure import evaluation
from snnprune.measure.evaluation import Activity
from snnprune.quantities import Natural, Share
from snnprune.report.provenance import DataSpec
from snnprune.report.schema.as_dict import AsDict, closed

Number = float
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Channels = Annotated[Activity, AsDict(name="Channels", without=("firing_rate",))]
Evaluation = Annotated[
    evaluation.Evaluation,
    AsDict(
        more={
            "accuracy": Share | None,
            "loss": float | None,
            "firing_rates": dict[str, Number],
            "activity": dict[str, Channels],
            "images": Literal["test", "validation", "train", "given"],
        },
        before="activity",
    ),
]
Data = Annotated[DataSpec, AsDict(name="Data", more={"evaluation": NotRequired[str]})]


@closed
class File(TypedDict):
    path: str
    sha256: NotRequired[Sha256]
    role: NotRequired[str]


@closed
class Fault(TypedDict):
    code: Annotated[int, Field(ge=1, le=143)]
    """The exit code."""
    file: str | None
    field: str | None
    message: str
    hint: str | None


@closed
class Model(TypedDict):
    name: str
    args: NotRequired[dict[str, Any]]
    forward: NotRequired[str | None]
    readout: NotRequired[str]


@closed
class Totals(TypedDict):
    prunable: Natural
    kept: Natural
    pruned: Natural
    weights: NotRequired[Natural]
    parameters: Natural


@closed
class Cost(TypedDict):
    seconds: dict[str, Number]
    peak_memory: Natural | None
    peak_gpu_memory: Natural | None


@closed
class Epoch(TypedDict):
    epoch: Natural
    train_loss: Number
    train_accuracy: Share | None
    validation_accuracy: Share | None
    learning_rate: Number
    skipped: NotRequired[Natural]


@closed
class TicketLayer(TypedDict):
    weight: str
    kept: Natural
    weights: Natural


@closed
class EarlyBird(TypedDict):
    """Of a ticket that was drawn while the dense network trained."""

    epochs: Natural
    distance: Share
    settled: bool


@closed
class Ticket(TypedDict):
    kind: Literal["ticket"]
    method: str
    round: Natural
    sparsity_asked: Share
    k: NotRequired[Share]
    """Of `search`: the share kept, as papers on edge-popup call it."""
    pruned: Natural
    prunable: Natural
    parameters: Natural
    validation_accuracy: Share | None
    test: Evaluation | None
    measured: NotRequired[Evaluation | None]
    """On validation images, or training images, where there are no test images."""
    layers: list[TicketLayer]
    early_bird: NotRequired[EarlyBird]


@closed
class EpochRow(Epoch):
    """Of `metrics.jsonl`."""

    kind: Literal["epoch"]
    method: NotRequired[str]
    round: NotRequired[Natural]


Row = Annotated[EpochRow | Ticket, Field(discriminator="kind")]
"""A line of `metrics.jsonl`."""


@closed
class Point(TypedDict):
    method: str
    sparsity_asked: Share
    sparsity: Share
    pruned: list[Natural]
    prunable: list[Natural]
    accuracies: list[Share]
    accuracy_mean: Share | None
    accuracy_deviation: Number | None
    densities: dict[str, Share]
    firing_rates: dict[str, Number]


@closed
class Summary(TypedDict):
    accuracies_on: Literal["test", "validation", "train"]
    seeds: Natural
    dense: Point | None
    points: list[Point]


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
