"""Parts of reports that dataclasses fill, and what is made of these."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from snnprune.export import sizes
from snnprune.jobs import demo, environment, inspect
from snnprune.jobs.prune import target_sparsity
from snnprune.jobs.sensitivity import sensitivity
from snnprune.jobs.sensitivity import trials as layer_trials
from snnprune.jobs.targets import reporting
from snnprune.jobs.theory import crisis, measuring, width
from snnprune.jobs.train import dry_run, grids
from snnprune.jobs.train.reports import Summary
from snnprune.measure import agreement
from snnprune.measure.quantities import Natural, Share
from snnprune.pruning import effects
from snnprune.pruning.repair import settings
from snnprune.report import frame
from snnprune.report.gates import gate
from snnprune.report.schema.as_dict import AsDict, closed
from snnprune.report.schema.parts import Data, Evaluation, Model, Number
from snnprune.theory import accumulation, construction, moving, neuron, trials, widths

Workload = Annotated[frame.WorkloadRow, AsDict(name="Workload")]
Sizes = Annotated[sizes.Sizes, AsDict()]
Tuning = Annotated[settings.TuneOutcome, AsDict(name="Tuning")]
Gate = Annotated[gate.Verdict, AsDict(name="Gate")]
Evidence = Annotated[effects.PruneEvidence, AsDict(name="Evidence")]
Membrane = Annotated[effects.Membrane, AsDict()]
ScoreHistogram = Annotated[effects.ScoreHistogram, AsDict()]
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
Cost = Annotated[environment.Cost, AsDict()]
Neuron = Annotated[inspect.NeuronRow, AsDict(name="Neuron")]
Trial = Annotated[
    layer_trials.TrialRow,
    AsDict(name="Trial", more={"outputs": Outputs | None, "answers": Answers | None}),
]
Fragment = Annotated[sensitivity.RecipeRow, AsDict(name="Fragment", more={"together": Agreement})]
LevelEffect = Annotated[
    measuring.Effect,
    AsDict(
        name="LevelEffect",
        more={"evaluation": Evaluation | None, "layers": list[LayerEffect]},
    ),
]
LayerCrisis = Annotated[
    crisis.CrisisRow, AsDict(name="LayerCrisis", more={"moved": MovedMembranes})
]
OF_RUN = {"model": Model, "data": Data}
GridRun = Annotated[grids.GridRun, AsDict(more={**OF_RUN, "summary": Summary})]
TriedRun = Annotated[grids.TriedRun, AsDict(more={**OF_RUN, "dry_run": Estimate})]


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
