"""What `snnprune prune` is asked for, and which files that makes; imports no torch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from snnprune.jobs.prune.tune_options import TuneOptions
from snnprune.jobs.shared_options import (
    EnergyOptions,
    GateOptions,
    ReadoutFlag,
    ReportFlag,
    ScoringOptions,
    TrustFlag,
    parse_sparsities,
)
from snnprune.jobs.targets.options import FurtherOptions, MeasuredOptions, ReadAs
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.repair import REPAIRS
from snnprune.report.gates.limits import parse_points


@dataclass(frozen=True, kw_only=True)
class AccuracyTarget:
    """An accuracy to hold, in place of a sparsity; one of the two is set."""

    accuracy: float | None = None
    """In [0, 1]."""
    drop: float | None = None
    """Percentage points below the dense network."""
    resolution: float = 0.005
    """Of the sparsity that is looked for."""

    @property
    def flag(self) -> str:
        """The flag that asked for it."""
        return "--target-accuracy" if self.drop is None else "--max-accuracy-drop"

    def below(self, dense: float) -> float:
        """The accuracy to hold, in [0, 1], where the dense network has `dense`."""
        return dense - self.drop / 100 if self.drop is not None else self.accuracy or 0.0


@dataclass(frozen=True, kw_only=True)
class GoalOptions(FurtherOptions):
    """How much is pruned: so much, or as much as an accuracy allows."""

    sparsities: Annotated[
        tuple[float, ...],
        ReadAs(given=str | None, read=parse_sparsities),
        typer.Option(
            "--sparsity",
            metavar="S[,S...]",
            help="Share of the weights to prune, in [0, 1); several make a file each.",
        ),
    ] = ()
    target_accuracy: Annotated[
        float | None,
        typer.Option(metavar="A", help="The highest sparsity with this validation accuracy."),
    ] = None
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Likewise, so many percentage points below dense; beside --sparsity a gate.",
        ),
    ] = None
    resolution: Annotated[
        float, typer.Option(metavar="S", help="Of the sparsity that is looked for.")
    ] = 0.005

    def check(self) -> None:
        """Refuse a drop that is no number of points."""
        if self.max_accuracy_drop is not None:
            parse_points(self.max_accuracy_drop, "--max-accuracy-drop")
        super().check()

    @property
    def accuracy_target(self) -> AccuracyTarget | None:
        """What to look for, where that is asked for."""
        drop = None if self.sparsities else self.max_accuracy_drop
        if self.target_accuracy is None and drop is None:
            return None
        return AccuracyTarget(
            accuracy=self.target_accuracy,
            drop=None if drop is None else float(drop),
            resolution=self.resolution,
        )


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    ScoringOptions, MeasuredOptions, GoalOptions, TuneOptions, GateOptions, EnergyOptions
):
    """What the command line asks for; None takes the default that fits the target."""

    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The pruned file: .safetensors, or as the input.",
            readable=False,
        ),
    ]
    allocation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{', '.join(ALLOCATIONS.rows)}; see docs/criteria."),
    ] = None
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"none, {', '.join(REPAIRS.rows)}, or several as obs+tune."
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rank and repair again on the way; 1 by default."),
    ] = None
    structure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="unstructured, N:M along the inputs (as 2:4), or channels."
        ),
    ] = None
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML with a section prune; flags come before it.", readable=False
        ),
    ] = None
    trust_recipe: TrustFlag = False
    evaluate: Annotated[
        bool,
        ReadAs(given=bool, default=False, read=operator.not_),
        typer.Option("--no-eval", help="Do not measure accuracy before and after."),
    ] = True
    eval_samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Test and validation images; all by default."),
    ] = None
    readout: ReadoutFlag = "auto"
    report: ReportFlag = None
    layers: Mapping[str, float] = field(default_factory=dict)
    """The sparsity of layers that have one of their own, by weight key; a recipe says it."""

    def list_inputs(self) -> list[Path]:
        """The files that are read, the recipe too."""
        return [*super().list_inputs(), *filter(None, (self.recipe,))]

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop` where it is a gate: nothing is to be looked for."""
        return self.max_accuracy_drop if self.sparsities else None

    @property
    def places(self) -> tuple[OutputPaths, ...]:
        """Where the files of each sparsity go; of a target there is one."""
        if len(self.sparsities) < 2:
            return (OutputPaths(out=self.out, report_folder=self.report),)
        return tuple(
            OutputPaths(
                out=self.out.with_name(f"{self.out.stem}-{sparsity:g}{self.out.suffix}"),
                report_folder=self.report,
                report_name=f"report-{sparsity:g}.json",
            )
            for sparsity in self.sparsities
        )


@dataclass(frozen=True, kw_only=True)
class OutputPaths:
    """A pruned file and what lies beside it."""

    out: Path
    report_folder: Path | None = None
    report_name: str = "report.json"

    @property
    def mask_file(self) -> Path:
        """Where the masks go."""
        return self.out.with_name(f"{self._name}.mask.safetensors")

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        if self.report_folder is not None:
            return self.report_folder / self.report_name
        return self.out.with_name(f"{self._name}.report.json")

    @property
    def _name(self) -> str:
        """What the files beside the output begin with: two containers do not share them."""
        return self.out.stem if self.out.suffix == ".safetensors" else self.out.name

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All three."""
        return self.out, self.mask_file, self.report_file
