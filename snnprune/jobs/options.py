"""What the commands whose job is one file are asked for, and flags that several commands share.

Importing this imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from snnprune.errors import UsageError, suggest_percent
from snnprune.files.reading import require_readable
from snnprune.files.writing import require_free
from snnprune.jobs.targets.options import (
    DeviceOptions,
    FurtherOptions,
    MeasuredOptions,
    NetworkOptions,
    PassOptions,
    ReadAs,
    TargetOptions,
    make_samples_option,
)
from snnprune.measure import Energy
from snnprune.pruning.allocation import require_sparsity
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.repair import FEWEST_BITS, MOST_BITS, require_bits, require_repair
from snnprune.report.gates import GATES, read_limits
from snnprune.report.verdicts import Limit

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
        help="test, validation or train; by default test samples, or all where nothing says which.",
    ),
]
LimitFlag = Annotated[int | None, make_samples_option("Samples; all by default.")]


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
    samples: Annotated[int, make_samples_option("Training samples to calibrate on.")] = 1024
    strict: StrictFlag = False
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False
    hold_out: float = HOLD_OUT

    def check(self) -> None:
        """Refuse an unknown criterion, and statistics that cannot be read."""
        if self.criterion is not None:
            CRITERIA.require(self.criterion, field="--criterion")
        super().check()
        if self.calibration is not None:
            require_readable(self.calibration)

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


def parse_trial_sparsities(text: str) -> tuple[float, ...]:
    """The sparsities that each layer alone is pruned to.

    Raises:
        UsageError: a part is none, or there twice.
    """
    found = parse_sparsities(text, field="--sparsities")
    for sparsity in found:
        require_sparsity(sparsity, field="--sparsities")
    if len({f"{sparsity:g}" for sparsity in found}) < len(found):
        raise UsageError("names a sparsity twice", field="--sparsities")
    return found


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
    max_layer_synops: Annotated[str | None, _make_option("max-layer-synops", "N")] = None
    max_energy: Annotated[str | None, _make_option("max-energy", "PJ")] = None
    max_size: Annotated[str | None, _make_option("max-size", "BYTES")] = None
    max_weights: Annotated[str | None, _make_option("max-weights", "N")] = None
    max_fan_in: Annotated[str | None, _make_option("max-fan-in", "N")] = None
    min_per_channel: Annotated[str | None, _make_option("min-per-channel", "N")] = None
    max_dead: Annotated[str | None, _make_option("max-dead", "N|P%")] = None
    chip: Annotated[str | None, _make_option("chip", "NAME|FILE")] = None
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
        return Energy(mac=self.energy_mac, ac=self.energy_ac)


DROP = GATES["max-accuracy-drop"]


@dataclass(frozen=True, kw_only=True)
class InspectOptions(TargetOptions):
    """What `snnprune inspect` is asked for."""

    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics",
            help="Read the values of files beyond 256 MiB too: zeros, and whether all are finite.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(TargetOptions):
    """What `snnprune calibrate` is asked for."""

    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the statistics go.", readable=False
        ),
    ]
    samples: Annotated[int, make_samples_option("Training samples to look at.")] = 1024
    strict: StrictFlag = False
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False
    report: ReportFlag = None
    hold_out: float = HOLD_OUT


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScoringOptions, MeasuredOptions):
    """What `snnprune score` is asked for."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where the scores go.", readable=False),
    ] = None
    report: ReportFlag = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MeasuredOptions, EnergyOptions, ReportOptions):
    """What `snnprune eval` is asked for."""

    split: SplitFlag = None
    """None: see `Target.choose_split`."""
    readout: ReadoutFlag = "auto"
    limit: LimitFlag = None

    def check(self) -> None:
        """Refuse a split that no data set has, too."""
        super().check()
        require_split(self.split)


@dataclass(frozen=True, kw_only=True)
class DiffOptions(MeasuredOptions, ReportOptions):
    """Two checkpoints of one network; the flags are about both, the first says which network."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A .safetensors (or its index), .pth or .nir file.", readable=False
        ),
    ]
    other: Annotated[
        Path,
        typer.Argument(
            metavar="B", help="Another of the same network, of any kind.", readable=False
        ),
    ]
    split: SplitFlag = None
    """None: see `Target.choose_split`."""
    readout: ReadoutFlag = "auto"
    limit: LimitFlag = None

    def check(self) -> None:
        """Refuse another checkpoint that cannot be read, and a split that no data set has."""
        super().check()
        require_readable(self.other)
        require_split(self.split)


@dataclass(frozen=True, kw_only=True)
class CheckOptions(MeasuredOptions, GateOptions, ReportOptions, EnergyOptions):
    """What `snnprune check` is asked for."""

    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(DROP.flag, metavar="POINTS", help=DROP.help, rich_help_panel=GATES_PANEL),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The checkpoint before pruning, for drop and agreement.",
            rich_help_panel=GATES_PANEL,
            readable=False,
        ),
    ] = None
    sha256: Annotated[
        str | None,
        typer.Option(
            metavar="HASH|FILE",
            help="What CKPT must be to the bit: its hash, or a list such as SHA256SUMS.",
        ),
    ] = None
    split: SplitFlag = None
    """None: see `Target.choose_split`."""
    readout: ReadoutFlag = "auto"
    limit: LimitFlag = None

    def check(self) -> None:
        """Refuse a split that no data set has, and a baseline that cannot be read, too."""
        super().check()
        require_split(self.split)
        if self.baseline is not None:
            require_readable(self.baseline)

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop`, which is a gate here."""
        return self.max_accuracy_drop

    def list_inputs(self) -> list[Path]:
        """The files that are read, the baseline too."""
        return [*super().list_inputs(), *filter(None, (self.baseline,))]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(NetworkOptions):
    """What `snnprune export` is asked for."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="A .safetensors (or its index), .pth or .nir.", readable=False
        ),
    ]
    to: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="packed, dense, pth, csr, nir, onnx, integers, c or lava."
        ),
    ]
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where it goes.", readable=False)
    ]
    values: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of packed weights: exact, float32, float16, bfloat16 or int8 with a scale for "
            "each output channel.",
        ),
    ] = "exact"
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of integers and c: each weight rounded to a grid per output channel, "
            f"{FEWEST_BITS} to {MOST_BITS} bits; what prune --bits made needs none.",
        ),
    ] = None
    exact_sizes: Annotated[
        bool,
        typer.Option(
            "--exact-sizes",
            help="Try gzip and zstd on all of a file beyond 8 MiB too, some 2 MB a second.",
        ),
    ] = False
    chip: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Write only what fits this chip: of chips ls, or a YAML file."
        ),
    ] = None
    state_dict: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which dict of a torch file that holds several."),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False
    report: ReportFlag = None

    def check(self) -> None:
        """Refuse a grid or a chip that is none, and a checkpoint that cannot be read, too."""
        super().check()
        if self.bits is not None:
            require_bits(self.bits)
        require_readable(self.checkpoint)
        read_limits({"chip": self.chip})

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The chip, where one is named."""
        return read_limits({"chip": self.chip})

    @property
    def target(self) -> TargetOptions:
        """What it says of the network, for a format that needs it."""
        network = {one.name: getattr(self, one.name) for one in fields(NetworkOptions)}
        return TargetOptions(
            **network, checkpoint=self.checkpoint, state_dict=self.state_dict, device="cpu"
        )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(DeviceOptions):
    """What `snnprune demo` is asked for."""

    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything it makes.", readable=False)
    ] = Path("snnprune-demo")
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False


SPARSITIES = "0.5,0.7,0.8,0.9,0.95,0.98"


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(ScoringOptions, MeasuredOptions):
    """What `snnprune sensitivity` is asked for; None takes the default that fits the target."""

    REPORT: ClassVar[str] = "sensitivity.json"
    FRAGMENT: ClassVar[str] = "prune.yaml"
    PICTURES: ClassVar[tuple[str, ...]] = ("sensitivity.png", "sensitivity.svg")

    sparsities: Annotated[
        tuple[float, ...],
        ReadAs(given=str, default=SPARSITIES, read=parse_trial_sparsities),
        typer.Option(metavar="S,S...", help="What each layer alone is pruned to."),
    ] = parse_sparsities(SPARSITIES)
    sparsity: Annotated[
        float, typer.Option(metavar="S", help="Of all layers together, in the recipe.")
    ] = 0.9
    repair: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As in prune; bn by default where there is BatchNorm."),
    ] = None
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="validation (else training samples that calibration leaves), train or test.",
        ),
    ] = "validation"
    eval_samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Samples to compare on.")
    ] = 512
    readout: ReadoutFlag = "auto"
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for report, pages, recipe and pictures.",
            readable=False,
        ),
    ] = None

    def check(self) -> None:
        """Refuse a split that no data set has, what is no sparsity or repair, files in the way."""
        super().check()
        require_split(self.split)
        require_sparsity(self.sparsity)
        if self.repair is not None:
            require_repair(self.repair)
        for path in self.files:
            require_free(path, force=self.force, inputs=self.list_inputs())

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        from snnprune.report.pages import PAGES

        names = () if self.out is None else (self.REPORT, self.FRAGMENT, *self.PICTURES, *PAGES)
        return tuple(self.out / name for name in names if self.out is not None)
