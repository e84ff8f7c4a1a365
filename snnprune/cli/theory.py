"""`theory`: what the paper promises, in numbers, and tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.flags import ReadoutFlag, ReportFlag, ReportFlags, ShowFlags
from snnprune.cli.options import expand_options
from snnprune.errors import UsageError
from snnprune.jobs.targets.options import MeasuredOptions, Options, TargetOptions

if TYPE_CHECKING:
    from snnprune.jobs.theory.levels import ChangeLevel
    from snnprune.theory.widths import Setting


analyze_app = typer.Typer(
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


def _parse_levels(
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


def _run_analysis(
    kind: str,
    levels: tuple[ChangeLevel, ...],
    target: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    out: Path | None = None,
    time_axis: int | None = None,
) -> None:
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_analysis_lines, make_analysis_tables
    from snnprune.jobs.theory.analyze import AnalyzeOptions, analyze_checkpoint

    screen = Screen(show, report=images.report, force=images.force)
    options = AnalyzeOptions(
        target=replace(target, samples=images.samples, readout=images.readout),
        kind=kind,
        levels=levels,
        time_axis=time_axis,
        eval_samples=images.eval_samples,
        out=out,
        force=images.force,
    )
    found = analyze_checkpoint(options, screen.progress())
    lines = [*format_analysis_lines(found), *([f"wrote {out}"] if out else [])]
    tables = make_analysis_tables(found, screen.width, each=show.verbose)
    screen.result(*tables, *lines, report=found.report)


@analyze_app.command()
@expand_options
def quantize(
    target: MeasuredOptions,
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
    from snnprune.jobs.theory.levels import make_quantize_levels

    if per not in ("channel", "tensor"):
        raise UsageError(f"unknown {per!r}", field="--per", hint="choose channel or tensor")
    numbers = _parse_levels(
        bits, "--bits", "a number of bits from 2 to 16", lambda n: n in range(2, 17)
    )
    levels = make_quantize_levels(map(int, numbers), per_channel=per == "channel")
    _run_analysis("quantize", levels, target, images, show, out)


@analyze_app.command()
@expand_options
def lowrank(
    target: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    keep: Annotated[
        str, typer.Option(metavar="S[,S...]", help="Share of each layer's ranks, in (0, 1].")
    ] = "0.9,0.75,0.5,0.25",
    out: OutFlag = None,
) -> None:
    """Decompose weights: SVD, for convolutions Tucker-2. -v: each layer."""
    from snnprune.jobs.theory.levels import make_low_rank_levels

    shares = _parse_levels(keep, "--keep", "a share in (0, 1]", lambda share: 0 < share <= 1)
    _run_analysis("lowrank", make_low_rank_levels(shares), target, images, show, out)


@analyze_app.command()
@expand_options
def prune(
    target: MeasuredOptions,
    images: SampleFlags,
    show: ShowFlags,
    sparsity: Annotated[
        str, typer.Option(metavar="S[,S...]", help="Of each layer, by magnitude, in [0, 1).")
    ] = "0.1,0.3,0.5,0.7,0.9",
) -> None:
    """Prune without repair, beside the other changes. -v: each layer."""
    from snnprune.jobs.theory.levels import make_prune_levels

    shares = _parse_levels(
        sparsity, "--sparsity", "a share in [0, 1)", lambda share: 0 <= share < 1
    )
    _run_analysis("prune", make_prune_levels(shares), target, images, show)


@analyze_app.command()
@expand_options
def noise(
    target: MeasuredOptions,
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
    from snnprune.jobs.theory.levels import make_noise_levels

    highest = LOUDEST if kind == "gaussian" else 1.0
    wanted = f"a level of {kind} in (0, {highest:g}]"
    shares = _parse_levels(level, "--level", wanted, lambda share: 0 < share <= highest)
    levels = make_noise_levels(kind, shares, target.seed, time_axis)
    _run_analysis("noise", levels, target, images, show, time_axis=time_axis)


theory_app = typer.Typer(
    help="What the paper promises of spikes and tickets, in numbers, and tried.",
    no_args_is_help=True,
)


@dataclass(frozen=True, kw_only=True)
class SettingFlags(Options):
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

    def setting(self) -> Setting:
        """The same for the job."""
        from snnprune.theory.widths import Setting

        return Setting(**vars(self))


@theory_app.command()
@expand_options
def crisis(
    target: TargetOptions,
    show: ShowFlags,
    sparsity: Annotated[
        float | None,
        typer.Option(metavar="S", help="Prune each layer so far by magnitude; 0.5 by default."),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Bounds for that error of every current at least."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="R", help="Or add noise, in standard deviations of its weights."),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images, for statistics and counts.")
    ] = 256,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for a picture.", readable=False),
    ] = None,
    report: ReportFlag = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """How likely changed weights are to flip spikes, by layer. -v: densities and errors too."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import (
        format_crisis_lines,
        make_accumulation_table,
        make_crisis_table,
        make_density_table,
    )
    from snnprune.jobs.theory.crisis import CrisisOptions, theory_crisis

    screen = Screen(show, report=report, force=force)
    options = CrisisOptions(
        target=replace(target, samples=samples),
        sparsity=0.5 if sparsity is None and noise is None else sparsity,
        noise=noise,
        error=error,
        folder=out,
        force=force,
    )
    found = theory_crisis(options, screen.progress())
    written = "wrote crisis.svg, accumulation.svg and both as .png to"
    lines = [*format_crisis_lines(found), *([f"{written} {out}"] if out else [])]
    tables = [make_crisis_table(found, screen.width), make_accumulation_table(found, screen.width)]
    tables += [make_density_table(found, screen.width)] if show.verbose else []
    screen.result(*tables, *lines, report=found.report)


@theory_app.command()
@expand_options
def width(
    flags: SettingFlags,
    show: ShowFlags,
    error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Of every statement; by default the best of each."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(metavar="M", help="Least |u - u_th| on a finite data set: one row more."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for a picture.", readable=False),
    ] = None,
    report: ReportFlag = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """How wide a random network must be to hold a given one, as printed and corrected."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_width_lines, make_width_table
    from snnprune.jobs.theory.width import theory_width

    screen = Screen(show, report=report, force=force)
    found = theory_width(flags.setting(), error=error, margin=margin, folder=out, force=force)
    lines = [
        *format_width_lines(found),
        *([f"wrote widths.svg and widths.png to {out}"] if out else []),
    ]
    screen.result(make_width_table(found), *lines, report=found.report)


@theory_app.command()
@expand_options
def construct(
    flags: SettingFlags,
    show: ShowFlags,
    page: ReportFlags,
    reset: Annotated[float, typer.Option(metavar="V", help="V_reset, in [0, threshold).")] = 0.0,
    soft: Annotated[
        bool, typer.Option("--soft", help="Soft reset: the threshold is taken off instead.")
    ] = False,
    trials: Annotated[
        int, typer.Option(metavar="N", min=1, help="Seeds for each statement.")
    ] = 200,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The first of them.")] = 0,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Random inputs, where not all are tried.")
    ] = 1000,
    rate: Annotated[
        float, typer.Option(metavar="R", min=0, max=1, help="How often random inputs spike.")
    ] = 0.5,
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Checkpoint of the target: weights (N, N) in order; else drawn.",
            readable=False,
        ),
    ] = None,
    spikes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Input: x (samples, T, N) of 0 and 1; else made up.",
            readable=False,
        ),
    ] = None,
    by_density: Annotated[
        bool,
        typer.Option(
            "--by-density", help="Width by Theorem 4.3 and --p-sup, not by the data's margin."
        ),
    ] = False,
) -> None:
    """Draw random networks, find the given one in them, and compare spike for spike."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_construct_lines, make_construct_table
    from snnprune.jobs.theory.construct import ConstructOptions, theory_construct
    from snnprune.theory.neuron import NeuronDynamics

    screen = Screen(show, report=page.report, force=page.force)
    setting = flags.setting()
    options = ConstructOptions(
        setting=setting,
        dynamics=NeuronDynamics(
            threshold=setting.threshold, beta=setting.beta, reset=None if soft else reset
        ),
        trials=trials,
        seed=seed,
        samples=samples,
        rate=rate,
        by_margin=not by_density,
        target=target,
        spikes=spikes,
    )
    found = theory_construct(options, screen.progress())
    lines = format_construct_lines(found, setting.delta)
    screen.result(make_construct_table(found), *lines, report=found.report)
