"""The report of each command."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from snnprune.jobs.reports.parts import (
    Accumulation,
    Agreement,
    BothSizes,
    BuiltNetwork,
    Change,
    Cost,
    DemoPoint,
    Estimate,
    Evidence,
    FailureCount,
    Fragment,
    Gate,
    GridRun,
    Kept,
    Layer,
    LayerCrisis,
    LevelEffect,
    Membrane,
    MovedMembranes,
    Neuron,
    ScoreHistogram,
    Search,
    Sizes,
    TensorChange,
    TheoryDynamics,
    TheorySetting,
    TheoryStep,
    Trial,
    TriedRun,
    Tuning,
    WidthRow,
    Workload,
    Works,
)
from snnprune.jobs.train.reports import Finetune, Summary, Tickets, Train
from snnprune.measure.quantities import Natural, Share
from snnprune.report.schema.as_dict import closed, rename_in_schema
from snnprune.report.schema.parts import (
    Evaluation,
    Fault,
    File,
    Frame,
    Number,
    Totals,
)


@closed
class Failure(TypedDict):
    """What a command that could not do its work prints with --json."""

    ok: Literal[False]
    error: Fault


@closed
class Inspect(Frame):
    command: Literal["inspect"]
    container: str
    size_bytes: Natural
    metadata: dict[str, str]
    tensors: Natural
    totals: Totals
    layers: list[Layer]
    made: dict[str, str]
    unused: list[str]
    neurons: list[Neuron]


@closed
class Calibrate(Frame):
    command: Literal["calibrate"]
    samples: Natural
    time_steps: Natural
    layers: list[Layer]
    edges: list[Number]
    membranes: dict[str, Membrane]
    outputs: list[File]


@closed
class Score(Frame):
    command: Literal["score"]
    criterion: str
    criterion_because: str
    scale: Literal["linear", "log"]
    layers: list[Layer]
    score_histograms: dict[str, ScoreHistogram]
    unused: list[str]
    outputs: list[File]


@closed
class Prune(Frame):
    command: Literal["prune"]
    criterion: str
    criterion_because: str
    allocation: str
    repair: str
    steps: Natural
    structure: str
    channels: dict[str, Kept]
    smaller: dict[str, list[Natural]]
    tuning_because: str | None
    tuning: Tuning | None
    sparsity_asked: Share | None
    layers_asked: dict[str, Share]
    search: Search | None
    cost: Cost
    totals_before: Totals
    totals: Totals
    before: Evaluation | None
    after: Evaluation | None
    test: Evaluation | None
    """On test images, looked at once, where `after` is on those of `--eval-data`."""
    workload: Works | None
    sizes: BothSizes | None
    agreement: Agreement | None
    evidence: Evidence | None
    gates: list[Gate]
    layers: list[Layer]
    unused: list[str]
    outputs: list[File]


@closed
class PruneOfSeveral(Frame):
    """Of several sparsities."""

    command: Literal["prune"]
    files: list[Prune]
    cost: Cost


@closed
class Evaluate(Frame):
    command: Literal["eval"]
    split: str
    totals: Totals
    evaluation: Evaluation
    workload: Workload
    footprint_bytes: Natural
    layers: list[Layer]


@closed
class Check(Frame):
    command: Literal["check"]
    split: str | None
    size_bytes: Natural
    totals: Totals
    evaluation: Evaluation | None
    workload: Workload | None
    agreement: Agreement | None
    gates: Annotated[list[Gate], Field(min_length=1)]
    layers: list[Layer]


@closed
class Diff(Frame):
    command: Literal["diff"]
    split: str | None
    not_run: str | None
    totals: Change
    layers: list[TensorChange]
    others: list[TensorChange]
    agreement: Agreement | None


@closed
class Sensitivity(Frame):
    command: Literal["sensitivity"]
    criterion: str
    repair: str
    split: str
    samples: Natural
    calibration_samples: Natural
    dense_accuracy: Share | None
    sparsities: list[Share]
    trials: list[Trial]
    recipe: Fragment
    cost: Cost


@closed
class Export(Frame):
    command: Literal["export"]
    container: str
    to: str
    values: str
    sizes: Sizes
    written_bytes: Natural
    packed: list[str]
    outputs: list[File]


@closed
class Seeds(Frame):
    """Of several seeds."""

    command: Literal["train", "finetune", "imp", "search"]
    recipe: dict[str, Any]
    seeds: list[Natural]
    summary: Summary
    outputs: list[File]


@closed
class Grid(Frame):
    """Of several networks and data sets."""

    command: Literal["train", "imp", "search"]
    recipe: dict[str, Any]
    runs: list[GridRun]
    outputs: list[File]


@closed
@rename_in_schema("DryRun")
class DryRunReport(Frame):
    """Of `--dry-run`."""

    command: Literal["train", "finetune", "imp", "search"]
    recipe: dict[str, Any]
    dry_run: Estimate


@closed
class DryGrid(Frame):
    """Of `--dry-run` with several networks and data sets."""

    command: Literal["train", "imp", "search"]
    recipe: dict[str, Any]
    runs: list[TriedRun]


@closed
class Demo(Frame):
    command: Literal["demo"]
    dense: Evaluation
    points: list[DemoPoint]
    outputs: list[File]


@closed
class Analyze(Frame):
    command: Literal["analyze quantize", "analyze lowrank", "analyze prune", "analyze noise"]
    samples: Natural
    dense: Evaluation | None
    levels: list[LevelEffect]
    uncounted: list[str]
    outputs: list[File]


@closed
class TheoryWidth(Frame):
    command: Literal["theory width"]
    setting: TheorySetting
    firing: Share
    crisis: Number
    reach: Number
    widths: list[WidthRow]
    outputs: list[File]


@closed
class TheoryConstruct(Frame):
    command: Literal["theory construct"]
    setting: TheorySetting
    dynamics: TheoryDynamics
    by_margin: bool
    eps: Number
    steps: list[TheoryStep]
    networks: list[BuiltNetwork]
    within: FailureCount
    equal: FailureCount
    one: FailureCount


@closed
class TheoryCrisis(Frame):
    command: Literal["theory crisis"]
    samples: Natural
    time_steps: Natural
    sparsity: Share | None
    noise: Number | None
    crises: list[LayerCrisis]
    together: dict[str, MovedMembranes]
    uncounted: list[str]
    accumulation: list[Accumulation]
    outputs: list[File]


class Environment(TypedDict):
    """Of `env`: what a bug report needs, by name."""

    ok: Literal[True]
    snnprune: str
    executable: str


Report = (
    Inspect
    | Calibrate
    | Score
    | Prune
    | PruneOfSeveral
    | Evaluate
    | Check
    | Diff
    | Sensitivity
    | Export
    | Train
    | Finetune
    | Tickets
    | Seeds
    | Grid
    | DryRunReport
    | DryGrid
    | Demo
    | Analyze
    | TheoryCrisis
    | TheoryWidth
    | TheoryConstruct
    | Environment
    | Failure
)
