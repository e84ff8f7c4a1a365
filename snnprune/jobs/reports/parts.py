"""Parts of reports that dataclasses fill, and what is made of these."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from snnprune.export import sizes
from snnprune.jobs import demo
from snnprune.jobs.prune import target_sparsity
from snnprune.jobs.targets import reporting
from snnprune.jobs.theory import measuring, width
from snnprune.jobs.train import dry_run
from snnprune.measure import agreement, workload
from snnprune.pruning.repair import settings
from snnprune.quantities import Natural, Share
from snnprune.report import evidence
from snnprune.report.gates import gate
from snnprune.report.schema.as_dict import AsDict, closed
from snnprune.report.schema.parts import Evaluation, Number
from snnprune.theory import accumulation, construction, moving, neuron, trials, widths

LayerWork = Annotated[workload.LayerWork, AsDict()]
NeuronWork = Annotated[workload.NeuronWork, AsDict()]
Sizes = Annotated[sizes.Sizes, AsDict()]
Tuning = Annotated[settings.TuneOutcome, AsDict(name="Tuning")]
Gate = Annotated[gate.Verdict, AsDict(name="Gate")]
Membrane = Annotated[evidence.Membrane, AsDict()]
Crisis = Annotated[evidence.Crisis, AsDict()]
ScoreHistogram = Annotated[evidence.ScoreHistogram, AsDict()]
Try = Annotated[target_sparsity.Try, AsDict()]
Search = Annotated[target_sparsity.Search, AsDict()]
Estimate = Annotated[dry_run.DryRun, AsDict(name="Estimate")]
DemoPoint = Annotated[demo.DemoMeasurement, AsDict(name="DemoPoint")]
TheorySetting = Annotated[widths.Setting, AsDict(name="TheorySetting")]
TheoryDynamics = Annotated[neuron.NeuronDynamics, AsDict(name="TheoryDynamics")]
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
Change = Annotated[agreement.Change, AsDict(more=RELATIVE)]
TensorChange = Annotated[
    agreement.Change, AsDict(name="TensorChange", more={**RELATIVE, **OF_TENSOR})
]
LayerEffect = Annotated[measuring.LayerEffect, AsDict(more={"good": bool})]
FailureCount = Annotated[
    trials.TrialCount,
    AsDict(name="FailureCount", more={"share": Share, "low": Share, "high": Share}),
]
TheoryStep = Annotated[trials.LemmaTrial, AsDict(name="TheoryStep", more={"count": FailureCount})]
BuiltNetwork = Annotated[
    trials.NetworkTrial, AsDict(name="BuiltNetwork", more={"compared": ComparedNetworks})
]
MovedMembranes = Annotated[
    moving.MembraneShift,
    AsDict(name="MovedMembranes", without=("reach",), more={"furthest": list[Number]}),
]
Accumulation = Annotated[
    accumulation.AccumulatedFlips,
    AsDict(name="Accumulation", more={"flipped": list[Share], "hit": list[Share]}),
]


@closed
class Workload(TypedDict):
    samples: Natural
    dense: Natural
    macs: Natural
    acs: Natural
    outputs: Natural
    active: Natural
    updates: Natural
    energy_pj: Number
    energy_per_mac_pj: Number
    energy_per_ac_pj: Number
    layers: dict[str, LayerWork]
    neurons: dict[str, NeuronWork]


@closed
class Spikes(TypedDict):
    places: list[Natural]
    same: list[Natural]
    spikes: Annotated[list[list[Number]], Field(min_length=2, max_length=2)]
    timed: bool
    firing_rates: Annotated[list[Number], Field(min_length=2, max_length=2)]
    agreement: Share
    agreement_by_step: list[Share]


@closed
class Agreement(TypedDict):
    samples: Natural
    spike_agreement: Share | None
    neurons: dict[str, Spikes]
    outputs: Outputs | None
    answers: Answers | None


@closed
class InputRates(TypedDict):
    before: Number
    after: Number


@closed
class Evidence(TypedDict):
    samples: Natural
    edges: list[Number]
    before: dict[str, Membrane]
    after: dict[str, Membrane]
    crises: dict[str, Crisis]
    input_rates: dict[str, InputRates]
    scores: dict[str, ScoreHistogram]


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
class Fragment(TypedDict):
    sparsity: Share
    pruned: dict[str, Natural]
    weights: dict[str, Natural]
    together: Agreement


@closed
class LevelEffect(TypedDict):
    level: str
    value: Number
    parameters: Natural | None
    evaluation: Evaluation | None
    layers: list[LayerEffect]


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
