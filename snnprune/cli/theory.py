"""`theory`: what the paper promises, in numbers, and tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.flags import ReportFlag, ReportFlags, ShowFlags
from snnprune.cli.options import expand_options
from snnprune.jobs.options import Options
from snnprune.jobs.subjects.options import SubjectOptions

if TYPE_CHECKING:
    from snnprune.theory.widths import Setting

app = typer.Typer(
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


@app.command()
@expand_options
def crisis(
    subject: SubjectOptions,
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
        accumulation_table,
        crisis_lines,
        crisis_table,
        density_table,
    )
    from snnprune.jobs.theory.crisis import CrisisOptions, theory_crisis

    screen = Screen(show, report=report, force=force)
    options = CrisisOptions(
        subject=replace(subject, samples=samples),
        sparsity=0.5 if sparsity is None and noise is None else sparsity,
        noise=noise,
        error=error,
        folder=out,
        force=force,
    )
    found = theory_crisis(options, screen.progress())
    written = "wrote crisis.svg, accumulation.svg and both as .png to"
    lines = [*crisis_lines(found), *([f"{written} {out}"] if out else [])]
    tables = [crisis_table(found, screen.width), accumulation_table(found, screen.width)]
    tables += [density_table(found, screen.width)] if show.verbose else []
    screen.result(*tables, *lines, report=found.report)


@app.command()
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
    from snnprune.cli.theory_tables import width_lines, width_table
    from snnprune.jobs.theory.width import theory_width

    screen = Screen(show, report=report, force=force)
    found = theory_width(flags.setting(), error=error, margin=margin, folder=out, force=force)
    lines = [*width_lines(found), *([f"wrote widths.svg and widths.png to {out}"] if out else [])]
    screen.result(width_table(found), *lines, report=found.report)


@app.command()
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
    from snnprune.cli.theory_tables import construct_lines, construct_table
    from snnprune.jobs.theory.construct import ConstructOptions, theory_construct
    from snnprune.theory.dynamics import Dynamics

    screen = Screen(show, report=page.report, force=page.force)
    setting = flags.setting()
    options = ConstructOptions(
        setting=setting,
        dynamics=Dynamics(
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
    lines = construct_lines(found, setting.delta)
    screen.result(construct_table(found), *lines, report=found.report)
