"""The report of each command."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from snnprune.report.schema.parts import (
    Agreement,
    Answers,
    Cost,
    Data,
    Epoch,
    Evaluation,
    Evidence,
    Fault,
    File,
    Gate,
    Layer,
    Membrane,
    Model,
    Number,
    Outputs,
    ScoreHistogram,
    Share,
    Sizes,
    Summary,
    Ticket,
    Totals,
    Whole,
    Workload,
    closed,
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
    seed: Whole
    device: str
    versions: dict[str, str]
    model: Model | None
    data: Data | None
    excluded: list[str]
    warnings: list[str]


@closed
class Failure(TypedDict):
    """What a command that could not do its work prints with --json."""

    ok: Literal[False]
    error: Fault


@closed
class Neuron(TypedDict):
    name: str
    library: str
    steps: Whole | None
    feeders: list[str]
    identities: list[str]


@closed
class Inspect(Frame):
    command: Literal["inspect"]
    container: str
    size_bytes: Whole
    metadata: dict[str, str]
    tensors: Whole
    totals: Totals
    layers: list[Layer]
    made: dict[str, str]
    unused: list[str]
    neurons: list[Neuron]


@closed
class Calibrate(Frame):
    command: Literal["calibrate"]
    samples: Whole
    time_steps: Whole
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
class Try(TypedDict):
    sparsity: Share
    accuracy: Share
    held: bool


@closed
class Search(TypedDict):
    split: str
    images: Whole
    dense: Share
    target: Number
    resolution: Share
    tries: list[Try]


@closed
class Kept(TypedDict):
    kept: Whole
    of: Whole


@closed
class Works(TypedDict):
    before: NotRequired[Workload]
    after: NotRequired[Workload]


@closed
class BothSizes(TypedDict):
    before: Sizes
    after: Sizes


@closed
class Prune(Frame):
    command: Literal["prune"]
    criterion: str
    criterion_because: str
    allocation: str
    repair: str
    steps: Whole
    structure: str
    channels: dict[str, Kept]
    smaller: dict[str, list[Whole]]
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
    footprint_bytes: Whole
    layers: list[Layer]


@closed
class Check(Frame):
    command: Literal["check"]
    split: str | None
    size_bytes: Whole
    totals: Totals
    evaluation: Evaluation | None
    workload: Workload | None
    agreement: Agreement | None
    gates: Annotated[list[Gate], Field(min_length=1)]
    layers: list[Layer]


@closed
class Change(TypedDict):
    values: Whole
    changed: Whole
    zeros_first: Whole
    zeros_other: Whole
    kept_by_both: Whole
    kept_by_either: Whole
    squared_change: Number
    squared_norm: Number
    relative_change: Number | None
    overlap: Share | None


@closed
class TensorChange(Change):
    key: str
    shape: list[Whole]


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
class Trial(TypedDict):
    weight: str
    sparsity: Share
    pruned: Whole
    weights: Whole
    accuracy: Share | None
    same_class: Share
    divergence: Number
    spike_agreement: Share | None
    behind: list[str]
    spikes_same: Whole
    spikes_places: Whole
    outputs: Outputs | None
    answers: Answers | None


@closed
class Fragment(TypedDict):
    sparsity: Share
    pruned: dict[str, Whole]
    weights: dict[str, Whole]
    together: Agreement


@closed
class Sensitivity(Frame):
    command: Literal["sensitivity"]
    criterion: str
    repair: str
    split: str
    samples: Whole
    calibration_samples: Whole
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
    written_bytes: Whole
    packed: list[str]
    outputs: list[File]


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


Masks = TypedDict("Masks", {"from": str, "pruned": Whole, "prunable": Whole})


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


@closed
class Seeds(Frame):
    """Of several seeds."""

    command: Literal["train", "finetune", "imp", "search"]
    recipe: dict[str, Any]
    seeds: list[Whole]
    summary: Summary
    outputs: list[File]


@closed
class GridRun(TypedDict):
    folder: str
    model: Model
    data: Data
    summary: Summary


@closed
class Grid(Frame):
    """Of several networks and data sets."""

    command: Literal["train", "imp", "search"]
    recipe: dict[str, Any]
    runs: list[GridRun]
    outputs: list[File]


@closed
class Training(TypedDict):
    method: str
    round: Whole
    sparsity: Share
    kept: Whole
    epochs: Whole
    steps: Whole
    speed: Number


@closed
class Estimate(TypedDict):
    runs: Whole
    parameters: Whole
    prunable: Whole
    images: dict[str, Whole | None]
    steps_per_epoch: Whole
    trainings: list[Training]
    epochs: Whole
    steps: Whole
    seconds_per_step: Number
    seconds_per_evaluated_batch: Number
    seconds: Number
    peak_bytes: Whole
    state_bytes: Whole
    result_bytes: Whole


@closed
class DryRun(Frame):
    """Of `--dry-run`."""

    command: Literal["train", "finetune", "imp", "search"]
    recipe: dict[str, Any]
    dry_run: Estimate


@closed
class TriedRun(TypedDict):
    folder: str
    model: Model
    data: Data
    dry_run: Estimate


@closed
class DryGrid(Frame):
    """Of `--dry-run` with several networks and data sets."""

    command: Literal["train", "imp", "search"]
    recipe: dict[str, Any]
    runs: list[TriedRun]


@closed
class DemoPoint(TypedDict):
    criterion: str
    repair: str
    sparsity: Share
    pruned: Whole
    prunable: Whole
    correct: Whole
    labelled: Whole


@closed
class Demo(Frame):
    command: Literal["demo"]
    dense: Evaluation
    points: list[DemoPoint]
    outputs: list[File]


@closed
class LayerEffect(TypedDict):
    layer: str
    neuron: str
    error: Number
    predicted: Share
    measured: Share
    correlation: Number | None
    places: Whole
    good: bool


@closed
class LevelEffect(TypedDict):
    level: str
    value: Number
    parameters: Whole | None
    evaluation: Evaluation | None
    layers: list[LayerEffect]


@closed
class Analyze(Frame):
    command: Literal["analyze quantize", "analyze lowrank", "analyze prune", "analyze noise"]
    samples: Whole
    dense: Evaluation | None
    levels: list[LevelEffect]
    uncounted: list[str]
    outputs: list[File]


@closed
class TheorySetting(TypedDict):
    neurons: Whole
    layers: Whole
    steps: Whole
    threshold: Number
    beta: Share
    p_sup: Number
    delta: Share
    span: Number
    largest: Number | None


@closed
class WidthRow(TypedDict):
    statement: str
    what: str
    error: Number
    printed: Whole
    corrected: Whole


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
class TheoryDynamics(TypedDict):
    threshold: Number
    beta: Share
    reset: Number | None


@closed
class FailureCount(TypedDict):
    failures: Whole
    trials: Whole
    share: Share
    low: Share
    high: Share


@closed
class TheoryStep(TypedDict):
    name: str
    width: Whole
    promised: Share
    exact: Share | None
    count: FailureCount


@closed
class ComparedNetworks(TypedDict):
    places: Whole
    flipped: Whole
    samples: Whole
    struck: Whole
    struck_one: bool
    margin: Number


@closed
class BuiltNetwork(TypedDict):
    seed: Whole
    width: Whole
    error: Number
    within: bool
    compared: ComparedNetworks
    kept: Whole


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
class MovedMembranes(TypedDict):
    places: list[Number]
    flips: list[Number]
    clean: list[Number]
    first: list[Number]
    size: list[Number]
    furthest: list[Number]


@closed
class LayerCrisis(TypedDict):
    layer: str
    neuron: str
    error: list[Number]
    radius: list[Number]
    density_gaussian: list[Number]
    density_counted: list[Number]
    estimate: list[Share]
    estimate_counted: list[Share]
    near: list[Share]
    bound: list[Share]
    correlation: Number | None
    followed: bool
    moved: MovedMembranes


@closed
class Accumulation(TypedDict):
    neuron: str
    flipped: list[Share]
    hit: list[Share]
    near: list[Number] | None
    bound: list[Number] | None


@closed
class TheoryCrisis(Frame):
    command: Literal["theory crisis"]
    samples: Whole
    time_steps: Whole
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
    | DryRun
    | DryGrid
    | Demo
    | Analyze
    | TheoryCrisis
    | TheoryWidth
    | TheoryConstruct
    | Environment
    | Failure
)
