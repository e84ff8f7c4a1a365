"""What `snnprune prune` is asked for, and which files that makes; imports no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from snnprune.errors import UsageError, did_you_mean
from snnprune.jobs.options import (
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
from snnprune.pruning.repair import FEWEST_BITS, MOST_BITS, REPAIRS, require_bits
from snnprune.pruning.structure import UNSTRUCTURED
from snnprune.report.gates import parse_points
from snnprune.report.verdicts import Limit

FAST, DEFAULT, THOROUGH = "fast", "default", "thorough"
EFFORTS = (FAST, DEFAULT, THOROUGH)
AUGMENTATIONS = ("flip", "shift")
PANEL = "Tuning"  # of --help
PUSHING = (
    *("max-weights", "max-fan-in", "max-synops", "max-layer-synops", "max-energy"),
    "max-size",
)
"""Gates that without a sparsity say how much is pruned."""
KEEPING = ("max-layer-sparsity", "min-per-channel")
"""Gates that say beside them what stays."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(FurtherOptions):
    """What the command line says of tuning; None is left to what fits the network and its data."""

    effort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="fast: closed form only; default: about a minute; thorough: as long as it pays.",
            rich_help_panel=PANEL,
        ),
    ] = None
    no_tune: Annotated[
        bool, typer.Option("--no-tune", help="As --effort fast.", rich_help_panel=PANEL)
    ] = False
    tune_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Steps; by default 960 or what fits.", rich_help_panel=PANEL
        ),
    ] = None
    tune_lr: Annotated[
        float | None,
        typer.Option(metavar="X", help="Peak of the learning rate.", rich_help_panel=PANEL),
    ] = None
    tune_images: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Training samples; 4096 by default.", rich_help_panel=PANEL
        ),
    ] = None
    use_labels: Annotated[
        bool,
        typer.Option(
            "--use-labels",
            help="Tune by the labels, not by the dense network.",
            rich_help_panel=PANEL,
        ),
    ] = False
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="flip, shift, both with a comma, or none; by default what fits built-in data.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def check(self) -> None:
        """Refuse unknown names, and what contradicts."""
        if self.effort is not None and self.effort not in EFFORTS:
            raise UsageError(
                f"unknown effort {self.effort!r}",
                field="--effort",
                hint=did_you_mean(self.effort, EFFORTS),
            )
        if self.no_tune and self.effort not in (None, FAST):
            raise UsageError(f"is given beside --effort {self.effort}", field="--no-tune")
        if self.closed_form:
            for flag in self.list_given():
                raise UsageError("says how to tune, and nothing is tuned", field=flag)
        if self.tune_lr is not None and not (math.isfinite(self.tune_lr) and self.tune_lr > 0):
            raise UsageError(f"{self.tune_lr:g} is no positive number", field="--tune-lr")
        self.parse_augment()
        super().check()

    @property
    def closed_form(self) -> bool:
        """Whether nothing is tuned by default."""
        return self.no_tune or self.effort == FAST

    @property
    def thorough(self) -> bool:
        """Whether it goes on as long as it pays."""
        return self.effort == THOROUGH

    def list_given(self) -> list[str]:
        """The flags that say how to tune."""
        given = {
            "--tune-steps": self.tune_steps is not None,
            "--tune-lr": self.tune_lr is not None,
            "--tune-images": self.tune_images is not None,
            "--use-labels": self.use_labels,
            "--augment": self.augment is not None,
        }
        return [flag for flag, is_given in given.items() if is_given]

    def parse_augment(self) -> tuple[str, ...] | None:
        """What may be done to images; None is left to the data.

        Raises:
            UsageError: a name is unknown.
        """
        if self.augment is None:
            return None
        names = tuple(filter(None, (name.strip() for name in self.augment.split(","))))
        if names == ("none",):
            return ()
        for name in names or (self.augment,):
            if name not in AUGMENTATIONS:
                raise UsageError(
                    f"unknown augmentation {name!r}",
                    field="--augment",
                    hint=did_you_mean(name, (*AUGMENTATIONS, "none")),
                )
        return names


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
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Put kept weights on a grid of integers per output channel, "
            f"{FEWEST_BITS} to {MOST_BITS} bits.",
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
        typer.Option(metavar="N", min=1, help="Test and validation samples; all by default."),
    ] = None
    readout: ReadoutFlag = "auto"
    report: ReportFlag = None
    layers: Mapping[str, float] = field(default_factory=dict)
    """The sparsity of layers that have one of their own, by weight key; a recipe says it."""

    def check(self) -> None:
        """Refuse a grid that is none."""
        if self.bits is not None:
            require_bits(self.bits)
        super().check()

    def list_inputs(self) -> list[Path]:
        """The files that are read, the recipe too."""
        return [*super().list_inputs(), *filter(None, (self.recipe,))]

    @property
    def fits_chip(self) -> bool:
        """Whether it is pruned until it fits a chip; beside a sparsity that is a gate."""
        return self.chip is not None and not self.sparsities and not self.layers

    @property
    def accuracy_target(self) -> AccuracyTarget | None:
        """What to look for, where that is asked for; a chip makes a gate of a drop."""
        found = super().accuracy_target
        return None if self.fits_chip and found and found.drop is not None else found

    @property
    def budget(self) -> tuple[Limit, ...]:
        """The limits that say how much is pruned, and what stays; none beside a sparsity."""
        if self.sparsities or self.layers:
            return ()
        found = tuple(one for one in self.limits if one.gate.name in (*PUSHING, *KEEPING))
        return found if any(one.gate.name in PUSHING for one in found) else ()

    @property
    def kept_by_layer(self) -> tuple[Limit, ...]:
        """The limits that say what stays while an accuracy says how much goes."""
        plain = self.structure in (None, UNSTRUCTURED) and self.allocation is None
        if self.accuracy_target is None or self.budget or self.layers or not plain:
            return ()
        return tuple(one for one in self.limits if one.gate.name in KEEPING)

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop` where it is a gate: nothing is to be looked for."""
        return self.max_accuracy_drop if self.sparsities or self.fits_chip else None

    @property
    def places(self) -> tuple[OutputPaths, ...]:
        """Where the files of each sparsity go; of a target there is one."""
        quantized = self.bits is not None
        if len(self.sparsities) < 2:
            return (OutputPaths(out=self.out, report_folder=self.report, quantized=quantized),)
        return tuple(
            OutputPaths(
                out=self.out.with_name(f"{self.out.stem}-{sparsity:g}{self.out.suffix}"),
                report_folder=self.report,
                report_name=f"report-{sparsity:g}.json",
                quantized=quantized,
            )
            for sparsity in self.sparsities
        )


@dataclass(frozen=True, kw_only=True)
class OutputPaths:
    """A pruned file and what lies beside it."""

    out: Path
    report_folder: Path | None = None
    report_name: str = "report.json"
    quantized: bool = False
    """Whether there are integers to be written."""

    @property
    def mask_file(self) -> Path:
        """Where the masks go."""
        return self.out.with_name(f"{self._name}.mask.safetensors")

    @property
    def integers_file(self) -> Path | None:
        """Where the integers go, where there are some."""
        return self.out.with_name(f"{self._name}.integers.safetensors") if self.quantized else None

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
    def files(self) -> tuple[Path, ...]:
        """All of them: the pruned file, the masks, the report, and the integers last."""
        return self.out, self.mask_file, self.report_file, *filter(None, (self.integers_file,))
