"""Parts that reports of several commands have.

Counts are stored; rates and shares are in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from snnprune.data.dataset import DataSpec
from snnprune.measure import evaluation
from snnprune.measure.evaluation import Activity
from snnprune.measure.quantities import Natural, Share
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
Data = Annotated[
    DataSpec, AsDict(name="Data", more={"validation": Share, "evaluation": NotRequired[str]})
]


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
