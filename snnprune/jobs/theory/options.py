"""What `snnprune analyze` and `snnprune theory` are asked for; importing this imports no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from snnprune.errors import UsageError
from snnprune.files.reading import require_readable
from snnprune.jobs.options import ReadoutFlag, ReportFlag, ReportOptions
from snnprune.jobs.targets.options import (
    MeasuredOptions,
    Options,
    ReadAs,
    TargetOptions,
    make_samples_option,
)

if TYPE_CHECKING:
    from snnprune.theory.construction import NeuronDynamics
    from snnprune.theory.widths import Setting


NOISES = ("gaussian", "delete", "insert", "jitter")
LOUDEST = 1000.0  # standard deviations
BITS, RANKS, SHARES = "8,6,4,3,2", "0.9,0.75,0.5,0.25", "0.1,0.3,0.5,0.7,0.9"
SamplesFlag = Annotated[int, make_samples_option("Training samples, for statistics and counts.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
ChangedFlag = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="The changed checkpoint, of one level.", readable=False
    ),
]
PictureFlag = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder for a picture.", readable=False),
]


def _parse_levels(
    text: str, *, field: str, wanted: str, holds: Callable[[float], bool]
) -> tuple[float, ...]:
    """The numbers of `8,6,4`, each once."""
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise UsageError(f"{part.strip()!r} is not {wanted}", field=field)
        found.append(value)
    return tuple(dict.fromkeys(found))


def _parse_bits(text: str) -> tuple[int, ...]:
    numbers = _parse_levels(
        text,
        field="--bits",
        wanted="a number of bits from 2 to 16",
        holds=lambda n: n in range(2, 17),
    )
    return tuple(map(int, numbers))


_parse_ranks = partial(
    _parse_levels, field="--keep", wanted="a share in (0, 1]", holds=lambda share: 0 < share <= 1
)
_parse_shares = partial(
    _parse_levels,
    field="--sparsity",
    wanted="a share in [0, 1)",
    holds=lambda share: 0 <= share < 1,
)


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(MeasuredOptions):
    """What all of `snnprune analyze` is asked for."""

    change: ClassVar[str]
    """What is done to the network, by the name of its command."""
    samples: SamplesFlag = 256
    eval_samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Test samples; all by default.")
    ] = None
    readout: ReadoutFlag = "auto"
    report: ReportFlag = None
    force: ForceFlag = False
    out: Path | None = None
    """A checkpoint with the changed weights; of one level."""
    time_axis: int | None = None
    """Of a batch, where somebody says."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(AnalyzeOptions):
    """Fewer bits."""

    change = "quantize"
    bits: Annotated[
        tuple[int, ...],
        ReadAs(given=str, default=BITS, read=_parse_bits),
        typer.Option(metavar="B[,B...]", help="Of each weight, 2 to 16."),
    ] = _parse_bits(BITS)
    per: Annotated[
        str, typer.Option(metavar="NAME", help="A scale for each channel, or tensor.")
    ] = "channel"
    out: ChangedFlag = None

    def check(self) -> None:
        """Refuse an unknown scale, too."""
        super().check()
        if self.per not in ("channel", "tensor"):
            raise UsageError(
                f"unknown {self.per!r}", field="--per", hint="choose channel or tensor"
            )


@dataclass(frozen=True, kw_only=True)
class LowRankOptions(AnalyzeOptions):
    """Fewer ranks."""

    change = "lowrank"
    keep: Annotated[
        tuple[float, ...],
        ReadAs(given=str, default=RANKS, read=_parse_ranks),
        typer.Option(metavar="S[,S...]", help="Share of each layer's ranks, in (0, 1]."),
    ] = _parse_ranks(RANKS)
    out: ChangedFlag = None


@dataclass(frozen=True, kw_only=True)
class DropOptions(AnalyzeOptions):
    """Fewer weights."""

    change = "prune"
    sparsity: Annotated[
        tuple[float, ...],
        ReadAs(given=str, default=SHARES, read=_parse_shares),
        typer.Option(metavar="S[,S...]", help="Of each layer, by magnitude, in [0, 1)."),
    ] = _parse_shares(SHARES)


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(AnalyzeOptions):
    """Another input."""

    change = "noise"
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="gaussian; of spikes delete, insert or jitter.")
    ] = "gaussian"
    level: Annotated[
        str,
        typer.Option(
            metavar="S[,S...]",
            help="Standard deviations of the input; the chance of a spike, or to insert of an "
            "empty place.",
        ),
    ] = "0.05,0.1,0.2,0.5"
    time_axis: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a batch; spikes jitter along it. Found if it is first."),
    ] = None

    def check(self) -> None:
        """Refuse an unknown kind of noise, and a level that it has not, too."""
        super().check()
        if self.kind not in NOISES:
            known = ", ".join(NOISES)
            raise UsageError(
                f"unknown noise {self.kind!r}", field="--kind", hint=f"choose from {known}"
            )
        self.parse_level()

    def parse_level(self) -> tuple[float, ...]:
        """The strengths.

        Raises:
            UsageError: one is outside the range of its kind.
        """
        highest = LOUDEST if self.kind == "gaussian" else 1.0
        return _parse_levels(
            self.level,
            field="--level",
            wanted=f"a level of {self.kind} in (0, {highest:g}]",
            holds=lambda share: 0 < share <= highest,
        )


@dataclass(frozen=True, kw_only=True)
class CrisisOptions(TargetOptions):
    """What `snnprune theory crisis` is asked for."""

    sparsity: Annotated[
        float | None,
        typer.Option(metavar="S", help="Prune each layer so far by magnitude; 0.5 by default."),
    ] = None
    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Bounds for that error of every current at least."),
    ] = None
    """In units of the membrane."""
    noise: Annotated[
        float | None,
        typer.Option(metavar="R", help="Or add noise, in standard deviations of its weights."),
    ] = None
    samples: SamplesFlag = 256
    out: PictureFlag = None
    report: ReportFlag = None
    force: ForceFlag = False

    @property
    def dropped(self) -> float | None:
        """The share of each layer's weights that goes, the smallest first; None with noise."""
        return 0.5 if self.sparsity is None and self.noise is None else self.sparsity


@dataclass(frozen=True, kw_only=True)
class SettingOptions(Options):
    """What a width depends on."""

    neurons: Annotated[int, typer.Option(metavar="N", min=1, help="Width of the target.")] = 3
    layers: Annotated[int, typer.Option(metavar="L", min=1, help="Its layers.")] = 2
    steps: Annotated[int, typer.Option(metavar="T", min=1, help="Its time steps.")] = 2
    threshold: Annotated[
        float, typer.Option(metavar="U", help="u_th of all neurons, below --span.")
    ] = 0.5
    beta: Annotated[float, typer.Option(metavar="B", help="Decay of membranes, in [0, 1).")] = 0.5
    p_sup: Annotated[
        float,
        typer.Option("--p-sup", metavar="P", help="Highest density of a membrane at u_th."),
    ] = 1.0
    delta: Annotated[
        float, typer.Option(metavar="D", help="Chance of failure that is allowed, in (0, 1).")
    ] = 0.2
    span: Annotated[float, typer.Option(metavar="A", help="Weights are drawn from U[-A, A].")] = 1.0

    @property
    def setting(self) -> Setting:
        """The same for the formulas."""
        from snnprune.theory.widths import Setting

        return Setting(**{one.name: getattr(self, one.name) for one in fields(SettingOptions)})


@dataclass(frozen=True, kw_only=True)
class WidthOptions(SettingOptions):
    """What `snnprune theory width` is asked for."""

    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Of every statement; by default the best of each."),
    ] = None
    margin: Annotated[
        float | None,
        typer.Option(metavar="M", help="Least |u - u_th| on a finite data set: one row more."),
    ] = None
    out: PictureFlag = None
    report: ReportFlag = None
    force: ForceFlag = False


@dataclass(frozen=True, kw_only=True)
class ConstructOptions(SettingOptions, ReportOptions):
    """What `snnprune theory construct` is asked for."""

    reset: Annotated[float, typer.Option(metavar="V", help="V_reset, in [0, threshold).")] = 0.0
    soft: Annotated[
        bool, typer.Option("--soft", help="Soft reset: the threshold is taken off instead.")
    ] = False
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Seeds for each statement.")] = 200
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The first of them.")] = 0
    samples: Annotated[int, make_samples_option("Random inputs, where not all are tried.")] = 1000
    rate: Annotated[
        float, typer.Option(metavar="R", min=0, max=1, help="How often random inputs spike.")
    ] = 0.5
    """Spikes per input per time step."""
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Checkpoint of the target: weights (N, N) in order; else drawn.",
            readable=False,
        ),
    ] = None
    spikes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Input: x (samples, T, N) of 0 and 1; else made up.",
            readable=False,
        ),
    ] = None
    by_margin: Annotated[
        bool,
        ReadAs(given=bool, default=False, read=operator.not_),
        typer.Option(
            "--by-density", help="Width by Theorem 4.3 and --p-sup, not by the data's margin."
        ),
    ] = True

    def check(self) -> None:
        """Refuse files that cannot be read, too."""
        super().check()
        for path in (self.target, self.spikes):
            if path is not None:
                require_readable(path)

    @property
    def dynamics(self) -> NeuronDynamics:
        """How all neurons work."""
        from snnprune.theory.construction import NeuronDynamics

        reset = None if self.soft else self.reset
        return NeuronDynamics(threshold=self.threshold, beta=self.beta, reset=reset)
