"""Flags that several commands share, written down once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.errors import UsageError
from snnprune.jobs.targets.options import Options
from snnprune.pruning.criteria import CRITERIA
from snnprune.report.gates.gate import Limit
from snnprune.report.gates.gates import GATES, read_limits
from snnprune.report.gates.limits import parse_points
from snnprune.text import suggest_percent

if TYPE_CHECKING:
    from snnprune.jobs.prune.options import AccuracyTarget
    from snnprune.measure.workload import Energy


READOUT_HELP = "auto, sum, mean or last over time, or file.py:function from output to scores."
CRITERION_HELP = (
    f"{', '.join(CRITERIA.rows)} or file.py:function; by default what is best known to work."
)
HOLD_OUT = 0.1
"""The part of images that nobody says the use of, which is not calibrated on but measured on."""
OUTPUT = "Output"  # a panel of --help


ReportFlag = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="DIR", help="Folder for report.html, .md and .json.", readable=False
    ),
]
StrictFlag = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a neuron whose spikes cannot be explained, not warn."),
]
TrustFlag = Annotated[
    bool,
    typer.Option("--trust-recipe", help="Run code that the recipe alone names, this time."),
]
ReadoutFlag = Annotated[str, typer.Option(metavar="NAME", help=READOUT_HELP)]


@dataclass(frozen=True, kw_only=True)
class ShowFlags(Options):
    """How a command talks."""

    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, nothing else.", rich_help_panel=OUTPUT),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No progress, no tables; the lines below them stay.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Tracebacks of your own code.", rich_help_panel=OUTPUT
        ),
    ] = False
    no_color: Annotated[
        bool,
        typer.Option("--no-color", help="Plain text; so does NO_COLOR.", rich_help_panel=OUTPUT),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ReportFlags(Options):
    """Where a command that writes nothing else leaves its report."""

    report: ReportFlag = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False


@dataclass(frozen=True, kw_only=True)
class ScoringFlags(Options):
    """How weights are scored."""

    criterion: Annotated[str | None, typer.Option(metavar="NAME", help=CRITERION_HELP)] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Statistics that calibrate wrote, instead of a new pass.",
            readable=False,
        ),
    ] = None
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to calibrate on.")
    ] = 1024
    strict: StrictFlag = False
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False

    def check(self) -> None:
        """Refuse an unknown criterion."""
        if self.criterion is not None:
            CRITERIA.require(self.criterion, field="--criterion")


@dataclass(frozen=True, kw_only=True)
class GoalFlags(Options):
    """How much is pruned: so much, or as much as an accuracy allows."""

    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="S[,S...]",
            help="Share of the weights to prune, in [0, 1); several make a file each.",
        ),
    ] = None
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
        """Refuse a sparsity that is no number, and a drop that is none."""
        parse_sparsities(self.sparsity)
        if self.max_accuracy_drop is not None:
            parse_points(self.max_accuracy_drop, "--max-accuracy-drop")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """Each of them."""
        return parse_sparsities(self.sparsity)

    @property
    def accuracy_target(self) -> AccuracyTarget | None:
        """What to look for, where that is asked for."""
        from snnprune.jobs.prune.options import AccuracyTarget

        drop = self.max_accuracy_drop if self.gated_drop is None else None
        if self.target_accuracy is None and drop is None:
            return None
        return AccuracyTarget(
            accuracy=self.target_accuracy,
            drop=None if drop is None else float(drop),
            resolution=self.resolution,
        )

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop` where it is a gate: nothing is to be looked for."""
        return None if self.sparsity is None else self.max_accuracy_drop


def parse_sparsities(text: str | None, *, field: str = "--sparsity") -> tuple[float, ...]:
    """The numbers of `0.5,0.7,0.9`; none of nothing.

    Raises:
        UsageError: a part is no number.
    """
    return (
        ()
        if text is None
        else tuple(_parse_sparsity(part.strip(), field) for part in text.split(","))
    )


def _parse_sparsity(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a number", field=field, hint=suggest_percent(text)
        ) from None


PANEL = "Gates: exit code 4 if one is not met"


def _make_option(name: str, metavar: str) -> typer.models.OptionInfo:
    gate = GATES[name]
    option = typer.Option(gate.flag, metavar=metavar, help=gate.help, rich_help_panel=PANEL)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@dataclass(frozen=True, kw_only=True)
class GateFlags(Options):
    """All gates but `--max-accuracy-drop`, which `prune` also looks for a sparsity by."""

    min_sparsity: Annotated[str | None, _make_option("min-sparsity", "S")] = None
    max_sparsity: Annotated[str | None, _make_option("max-sparsity", "S")] = None
    max_layer_sparsity: Annotated[str | None, _make_option("max-layer-sparsity", "S")] = None
    min_accuracy: Annotated[str | None, _make_option("min-accuracy", "A")] = None
    min_spike_agreement: Annotated[str | None, _make_option("min-spike-agreement", "S")] = None
    max_synops: Annotated[str | None, _make_option("max-synops", "N")] = None
    max_energy: Annotated[str | None, _make_option("max-energy", "PJ")] = None
    max_size: Annotated[str | None, _make_option("max-size", "BYTES")] = None
    max_dead: Annotated[str | None, _make_option("max-dead", "N|P%")] = None
    junit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Gates as JUnit XML too.", rich_help_panel=PANEL, readable=False
        ),
    ] = None

    def check(self) -> None:
        """Refuse what is no limit."""
        self.limits()

    def limits(self, drop: str | None = None) -> tuple[Limit, ...]:
        """The gates that are set; `drop` is that of `--max-accuracy-drop`."""
        written = {name: getattr(self, name.replace("-", "_"), None) for name in GATES}
        return read_limits({**written, "max-accuracy-drop": drop})


@dataclass(frozen=True, kw_only=True)
class EnergyFlags(Options):
    """What an operation is taken to cost."""

    energy_mac: Annotated[
        float, typer.Option(metavar="PJ", min=0, help="Of a multiply-accumulate.")
    ] = 4.6
    energy_ac: Annotated[float, typer.Option(metavar="PJ", min=0, help="Of an accumulate.")] = 0.9

    def check(self) -> None:
        """Refuse what is no energy."""
        for flag, each in (("--energy-mac", self.energy_mac), ("--energy-ac", self.energy_ac)):
            if not math.isfinite(each):
                raise UsageError(f"{each:g} is no energy", field=flag)

    def energy(self) -> Energy:
        """The same for the job."""
        from snnprune.measure.workload import Energy

        return Energy(mac=self.energy_mac, ac=self.energy_ac)
