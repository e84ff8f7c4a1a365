"""`analyze`: what else perturbs a spike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.flags import ReadoutFlag, ReportFlag, ShowFlags
from snnprune.cli.options import expand_options
from snnprune.errors import UsageError
from snnprune.jobs.options import Options
from snnprune.jobs.subjects.options import MeasuredOptions

if TYPE_CHECKING:
    from snnprune.jobs.theory.levels import Level

app = typer.Typer(
    help="What noise, quantization, low rank and pruning do to spikes, predicted and measured.",
    no_args_is_help=True,
)
LOUDEST = 1000.0  # standard deviations
OutFlag = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="The changed checkpoint, of one level.", readable=False
    ),
]


@dataclass(frozen=True, kw_only=True)
class SampleFlags(Options):
    """On how many images."""

    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images, for statistics and counts.")
    ] = 256
    eval_samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Test images; all by default.")
    ] = None
    readout: ReadoutFlag = "auto"
    report: ReportFlag = None
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False


def _levels(
    text: str, field: str, wanted: str, holds: Callable[[float], bool]
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


def _run(
    kind: str,
    levels: tuple[Level, ...],
    subject: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    out: Path | None = None,
    time_axis: int | None = None,
) -> None:
    from snnprune.cli.analysis_tables import analysis_lines, analysis_tables
    from snnprune.cli.console import Screen
    from snnprune.jobs.theory.analyze import AnalyzeOptions, analyze_checkpoint

    screen = Screen(show, report=images.report, force=images.force)
    options = AnalyzeOptions(
        subject=replace(subject, samples=images.samples, readout=images.readout),
        kind=kind,
        levels=levels,
        time_axis=time_axis,
        eval_samples=images.eval_samples,
        out=out,
        force=images.force,
    )
    found = analyze_checkpoint(options, screen.progress())
    lines = [*analysis_lines(found), *([f"wrote {out}"] if out else [])]
    tables = analysis_tables(found, screen.width, each=show.verbose)
    screen.result(*tables, *lines, report=found.report)


@app.command()
@expand_options
def quantize(
    subject: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    bits: Annotated[
        str, typer.Option(metavar="B[,B...]", help="Of each weight, 2 to 16.")
    ] = "8,6,4,3,2",
    per: Annotated[
        str, typer.Option(metavar="NAME", help="A scale for each channel, or tensor.")
    ] = "channel",
    out: OutFlag = None,
) -> None:
    """Round weights to few bits. -v: each layer."""
    from snnprune.jobs.theory.levels import quantize_levels

    if per not in ("channel", "tensor"):
        raise UsageError(f"unknown {per!r}", field="--per", hint="choose channel or tensor")
    numbers = _levels(bits, "--bits", "a number of bits from 2 to 16", lambda n: n in range(2, 17))
    levels = quantize_levels(map(int, numbers), per_channel=per == "channel")
    _run("quantize", levels, subject, images, show, out)


@app.command()
@expand_options
def lowrank(
    subject: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    keep: Annotated[
        str, typer.Option(metavar="S[,S...]", help="Share of each layer's ranks, in (0, 1].")
    ] = "0.9,0.75,0.5,0.25",
    out: OutFlag = None,
) -> None:
    """Decompose weights: SVD, for convolutions Tucker-2. -v: each layer."""
    from snnprune.jobs.theory.levels import low_rank_levels

    shares = _levels(keep, "--keep", "a share in (0, 1]", lambda share: 0 < share <= 1)
    _run("lowrank", low_rank_levels(shares), subject, images, show, out)


@app.command()
@expand_options
def prune(
    subject: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    sparsity: Annotated[
        str, typer.Option(metavar="S[,S...]", help="Of each layer, by magnitude, in [0, 1).")
    ] = "0.1,0.3,0.5,0.7,0.9",
) -> None:
    """Prune without repair, beside the other changes. -v: each layer."""
    from snnprune.jobs.theory.levels import prune_levels

    shares = _levels(sparsity, "--sparsity", "a share in [0, 1)", lambda share: 0 <= share < 1)
    _run("prune", prune_levels(shares), subject, images, show)


@app.command()
@expand_options
def noise(
    subject: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="gaussian; of spikes delete, insert or jitter.")
    ] = "gaussian",
    level: Annotated[
        str,
        typer.Option(
            metavar="S[,S...]",
            help="Standard deviations of the input; the chance of a spike, or to insert of an "
            "empty place.",
        ),
    ] = "0.05,0.1,0.2,0.5",
    time_axis: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a batch; spikes jitter along it. Found if it is first."),
    ] = None,
) -> None:
    """Disturb the input. -v: each layer of neurons."""
    from snnprune.jobs.theory.levels import noise_levels

    highest = LOUDEST if kind == "gaussian" else 1.0
    wanted = f"a level of {kind} in (0, {highest:g}]"
    shares = _levels(level, "--level", wanted, lambda share: 0 < share <= highest)
    levels = noise_levels(kind, shares, subject.seed, time_axis)
    _run("noise", levels, subject, images, show, time_axis=time_axis)
