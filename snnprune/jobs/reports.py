"""The reports of all commands as types; `python -m snnprune.jobs.reports` writes their JSON Schema.

First the parts of reports, most of which dataclasses fill, then the report of each command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from snnprune import export, measure
from snnprune.chips import check, rules
from snnprune.jobs import demo, inspect, sensitivity
from snnprune.jobs.prune import budgets, target_sparsity
from snnprune.jobs.targets import reporting
from snnprune.jobs.theory import analyze, crisis, width
from snnprune.jobs.train import dry_run, sweeps
from snnprune.jobs.train.looping import Finetune, Summary, Tickets, Train
from snnprune.measure import Natural, Share, agreement, workload
from snnprune.pruning import effects, repair
from snnprune.pruning.repair import quantize
from snnprune.report import schema, verdicts
from snnprune.report.schema import (
    AsDict,
    Data,
    Evaluation,
    Fault,
    File,
    Frame,
    Model,
    Number,
    Totals,
    closed,
    rename_in_schema,
)
from snnprune.theory import construction, shifts, trials, widths
from snnprune.theory.crisis import AccumulatedFlips

Workload = Annotated[workload.WorkloadRow, AsDict(name="Workload")]
Sizes = Annotated[export.Sizes, AsDict()]
Chain = Annotated[export.ChainCheck, AsDict(name="Chain")]
Tuning = Annotated[repair.TuneOutcome, AsDict(name="Tuning")]
Quantization = Annotated[quantize.Quantized, AsDict(name="Quantization", without=("weights",))]
LayerFit = Annotated[check.LayerFit, AsDict()]
Misfit = Annotated[rules.Misfit, AsDict()]
ChipFit = Annotated[
    check.ChipFit, AsDict(name="ChipFit", more={"layers": list[LayerFit], "misfits": list[Misfit]})
]
Gate = Annotated[verdicts.Verdict, AsDict(name="Gate")]
Evidence = Annotated[effects.PruneEvidence, AsDict(name="Evidence")]
Membrane = Annotated[effects.Membrane, AsDict()]
ScoreHistogram = Annotated[effects.ScoreHistogram, AsDict()]
Try = Annotated[target_sparsity.Try, AsDict()]
Search = Annotated[target_sparsity.Search, AsDict()]
Budget = Annotated[budgets.BudgetResult, AsDict(name="Budget")]
Estimate = Annotated[dry_run.DryRun, AsDict(name="Estimate")]
DemoPoint = Annotated[demo.DemoMeasurement, AsDict(name="DemoPoint")]
TheorySetting = Annotated[widths.Setting, AsDict(name="TheorySetting")]
TheoryDynamics = Annotated[construction.NeuronDynamics, AsDict(name="TheoryDynamics")]
WidthRow = Annotated[width.WidthStatement, AsDict(name="WidthRow")]
ComparedNetworks = Annotated[construction.NetworkComparison, AsDict(name="ComparedNetworks")]
Link = Annotated[reporting.LinkRow, AsDict(name="Link")]
Layer = Annotated[
    reporting.LayerRow,
    AsDict(name="Layer", more={"neuron": str | None, "links": list[Link]}, before="links"),
]
Outputs = Annotated[
    agreement.Outputs,
    AsDict(
        more={
            "mean_difference": NotRequired[Number],
            "mean_cosine": NotRequired[Number],
            "mean_divergence": NotRequired[Number],
            "same_class_share": NotRequired[Share],
        }
    ),
]
Answers = Annotated[
    agreement.Answers,
    AsDict(more={"labelled": NotRequired[Natural], "accuracies": NotRequired[list[Share]]}),
]
RELATIVE = {"relative_change": Number | None, "overlap": Share | None}
OF_TENSOR = {"key": str, "shape": list[Natural]}
Change = Annotated[measure.Change, AsDict(more=RELATIVE)]
TensorChange = Annotated[
    measure.Change, AsDict(name="TensorChange", more={**RELATIVE, **OF_TENSOR})
]
LayerEffect = Annotated[analyze.LayerEffect, AsDict(more={"good": bool})]
FailureCount = Annotated[
    trials.TrialCount,
    AsDict(name="FailureCount", more={"share": Share, "low": Share, "high": Share}),
]
TheoryStep = Annotated[trials.LemmaTrial, AsDict(name="TheoryStep", more={"count": FailureCount})]
BuiltNetwork = Annotated[
    trials.NetworkTrial, AsDict(name="BuiltNetwork", more={"compared": ComparedNetworks})
]
MovedMembranes = Annotated[
    shifts.MembraneShift,
    AsDict(name="MovedMembranes", without=("reach",), more={"furthest": list[Number]}),
]
Accumulation = Annotated[
    AccumulatedFlips,
    AsDict(name="Accumulation", more={"flipped": list[Share], "hit": list[Share]}),
]
Spikes = Annotated[agreement.SpikeRow, AsDict(name="Spikes")]
Agreement = Annotated[
    agreement.AgreementRow,
    AsDict(
        name="Agreement",
        more={
            "neurons": dict[str, Spikes],
            "outputs": Outputs | None,
            "answers": Answers | None,
        },
    ),
]
Cost = Annotated[reporting.Cost, AsDict()]
Neuron = Annotated[inspect.NeuronRow, AsDict(name="Neuron")]
Trial = Annotated[
    sensitivity.TrialRow,
    AsDict(name="Trial", more={"outputs": Outputs | None, "answers": Answers | None}),
]
Fragment = Annotated[sensitivity.RecipeRow, AsDict(name="Fragment", more={"together": Agreement})]
LevelEffect = Annotated[
    analyze.Effect,
    AsDict(
        name="LevelEffect",
        more={"evaluation": Evaluation | None, "layers": list[LayerEffect]},
    ),
]
LayerCrisis = Annotated[
    crisis.CrisisRow, AsDict(name="LayerCrisis", more={"moved": MovedMembranes})
]
OF_RUN = {"model": Model, "data": Data}
GridRun = Annotated[sweeps.GridRun, AsDict(more={**OF_RUN, "summary": Summary})]
TriedRun = Annotated[sweeps.TriedRun, AsDict(more={**OF_RUN, "dry_run": Estimate})]


@closed
class Kept(TypedDict):
    kept: Natural
    of: Natural


@closed
class Works(TypedDict):
    before: NotRequired[Workload]
    after: NotRequired[Workload]


@closed
class BothSizes(TypedDict):
    before: Sizes
    after: Sizes


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
    quantization: Quantization | None
    sparsity_asked: Share | None
    layers_asked: dict[str, Share]
    search: Search | None
    budget: Budget | None
    chip: ChipFit | None
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
    chip: ChipFit | None
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
    bits: Natural | None
    sizes: Sizes
    chain: Chain | None
    written_bytes: Natural
    packed: list[str]
    chip: ChipFit | None
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


@closed
class Chips(TypedDict):
    """Of `chips ls` and `chips show`: the settings of each, and its name."""

    ok: Literal[True]
    command: Literal["chips ls", "chips show"]
    chips: list[dict[str, Any]]


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
    | Chips
    | Environment
    | Failure
)


def make_schema() -> str:
    """That of the types, which goes into `snnprune.report.schema`."""
    found: dict[str, Any] = TypeAdapter(Report).json_schema()
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What snnprune reports",
        **found,
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    Path(schema.__file__).with_name(schema.FILE).write_text(make_schema(), encoding="utf-8")
