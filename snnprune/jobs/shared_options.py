"""Flags and groups of flags that several jobs share, written down once; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.errors import UsageError
from snnprune.errors.text import suggest_percent
from snnprune.jobs.targets.options import FurtherOptions, PassOptions, make_samples_option
from snnprune.pruning.criteria import CRITERIA
from snnprune.report.gates.gate import Limit
from snnprune.report.gates.gates import GATES, read_limits

if TYPE_CHECKING:
    from snnprune.measure.workload import Energy


READOUT_HELP = "auto, sum, mean or last over time, or file.py:function from output to scores."
CRITERION_HELP = (
    f"{', '.join(CRITERIA.rows)} or file.py:function; by default what is best known to work."
)
HOLD_OUT = 0.1
"""The part of images that nobody says the use of, which is not calibrated on but measured on."""
SPLITS = ("test", "validation", "train")
GATES_PANEL = "Gates: exit code 4 if one is not met"  # of --help


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
SplitFlag = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="test, validation or train; by default test images, or all where nothing says which.",
    ),
]
LimitFlag = Annotated[int | None, make_samples_option("Images; all by default.")]


@dataclass(frozen=True, kw_only=True)
class ReportOptions(FurtherOptions):
    """Where a command that writes nothing else leaves its report."""

    report: ReportFlag = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(PassOptions):
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
    samples: Annotated[int, make_samples_option("Training images to calibrate on.")] = 1024
    strict: StrictFlag = False
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False
    hold_out: float = HOLD_OUT

    def check(self) -> None:
        """Refuse an unknown criterion."""
        if self.criterion is not None:
            CRITERIA.require(self.criterion, field="--criterion")
        super().check()

    def list_inputs(self) -> list[Path]:
        """The files that are read, the statistics too."""
        return [*super().list_inputs(), *filter(None, (self.calibration,))]


def require_split(name: str | None) -> None:
    """Refuse a split that no data set has.

    Raises:
        UsageError: it is none of the three.
    """
    if name is not None and name not in SPLITS:
        raise UsageError(
            f"unknown split {name!r}", field="--split", hint="choose test, validation or train"
        )


def parse_sparsities(text: str, *, field: str = "--sparsity") -> tuple[float, ...]:
    """The numbers of `0.5,0.7,0.9`.

    Raises:
        UsageError: a part is no number.
    """
    return tuple(_parse_sparsity(part.strip(), field) for part in text.split(","))


def _parse_sparsity(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a number", field=field, hint=suggest_percent(text)
        ) from None


def _make_option(name: str, metavar: str) -> typer.models.OptionInfo:
    gate = GATES[name]
    option = typer.Option(gate.flag, metavar=metavar, help=gate.help, rich_help_panel=GATES_PANEL)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@dataclass(frozen=True, kw_only=True)
class GateOptions(FurtherOptions):
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
            metavar="FILE",
            help="Gates as JUnit XML too.",
            rich_help_panel=GATES_PANEL,
            readable=False,
        ),
    ] = None

    def check(self) -> None:
        """Refuse what is no limit."""
        self._read_limits()
        super().check()

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The gates that are set."""
        return self._read_limits()

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop`, where it is a gate."""
        return None

    def _read_limits(self) -> tuple[Limit, ...]:
        written = {name: getattr(self, name.replace("-", "_"), None) for name in GATES}
        return read_limits({**written, "max-accuracy-drop": self.gated_drop})


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(FurtherOptions):
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
        super().check()

    @property
    def energy(self) -> Energy:
        """Of each kind of operation."""
        from snnprune.measure.workload import Energy

        return Energy(mac=self.energy_mac, ac=self.energy_ac)
