"""What the commands whose job is one file are asked for; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from snnprune.files.readable import require_readable
from snnprune.jobs.shared_options import (
    GATES_PANEL,
    HOLD_OUT,
    EnergyOptions,
    GateOptions,
    LimitFlag,
    ReadoutFlag,
    ReportFlag,
    ReportOptions,
    ScoringOptions,
    SplitFlag,
    StrictFlag,
    require_split,
)
from snnprune.jobs.targets.options import (
    DeviceOptions,
    MeasuredOptions,
    NetworkOptions,
    TargetOptions,
    make_samples_option,
)
from snnprune.report.gates.gates import GATES

DROP = GATES["max-accuracy-drop"]


@dataclass(frozen=True, kw_only=True)
class InspectOptions(TargetOptions):
    """What `snnprune inspect` is asked for: it has no flags of its own."""


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(TargetOptions):
    """What `snnprune calibrate` is asked for."""

    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the statistics go.", readable=False
        ),
    ]
    samples: Annotated[int, make_samples_option("Training images to look at.")] = 1024
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
    to: Annotated[str, typer.Option(metavar="NAME", help="packed, dense, pth, csr, nir or onnx.")]
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
    state_dict: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which dict of a torch file that holds several."),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False
    report: ReportFlag = None

    def check(self) -> None:
        """Refuse a checkpoint that cannot be read, too."""
        super().check()
        require_readable(self.checkpoint)

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
