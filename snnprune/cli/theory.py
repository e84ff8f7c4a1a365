"""`theory` and `analyze`: what the paper promises, in numbers, and tried."""

from __future__ import annotations

import typer

from snnprune.cli.flags import ShowOptions
from snnprune.cli.options import expand_options
from snnprune.jobs.theory.options import (
    AnalyzeOptions,
    ConstructOptions,
    CrisisOptions,
    DropOptions,
    LowRankOptions,
    NoiseOptions,
    QuantizeOptions,
    WidthOptions,
)

analyze_app = typer.Typer(
    help="What noise, quantization, low rank and pruning do to spikes, predicted and measured.",
    no_args_is_help=True,
)


@analyze_app.command()
@expand_options
def quantize(options: QuantizeOptions, show: ShowOptions) -> None:
    """Round weights to few bits. -v: each layer."""
    _run_analysis(options, show)


@analyze_app.command()
@expand_options
def lowrank(options: LowRankOptions, show: ShowOptions) -> None:
    """Decompose weights: SVD, for convolutions Tucker-2. -v: each layer."""
    _run_analysis(options, show)


@analyze_app.command()
@expand_options
def prune(options: DropOptions, show: ShowOptions) -> None:
    """Prune without repair, beside the other changes. -v: each layer."""
    _run_analysis(options, show)


@analyze_app.command()
@expand_options
def noise(options: NoiseOptions, show: ShowOptions) -> None:
    """Disturb the input. -v: each layer of neurons."""
    _run_analysis(options, show)


def _run_analysis(options: AnalyzeOptions, show: ShowOptions) -> None:
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_analysis_lines, make_analysis_tables
    from snnprune.jobs.theory.analyze import analyze_checkpoint

    screen = Screen(show, report=options.report, force=options.force)
    found = analyze_checkpoint(options, screen.progress())
    lines = [*format_analysis_lines(found), *([f"wrote {options.out}"] if options.out else [])]
    tables = make_analysis_tables(found, screen.width, each=show.verbose)
    screen.result(*tables, *lines, report=found.report)


theory_app = typer.Typer(
    help="What the paper promises of spikes and tickets, in numbers, and tried.",
    no_args_is_help=True,
)


@theory_app.command()
@expand_options
def crisis(options: CrisisOptions, show: ShowOptions) -> None:
    """How likely changed weights are to flip spikes, by layer. -v: densities and errors too."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import (
        format_crisis_lines,
        make_accumulation_table,
        make_crisis_table,
        make_density_table,
    )
    from snnprune.jobs.theory.crisis import theory_crisis

    screen, out = Screen(show, report=options.report, force=options.force), options.out
    found = theory_crisis(options, screen.progress())
    written = "wrote crisis.svg, accumulation.svg and both as .png to"
    lines = [*format_crisis_lines(found), *([f"{written} {out}"] if out else [])]
    tables = [make_crisis_table(found, screen.width), make_accumulation_table(found, screen.width)]
    tables += [make_density_table(found, screen.width)] if show.verbose else []
    screen.result(*tables, *lines, report=found.report)


@theory_app.command()
@expand_options
def width(options: WidthOptions, show: ShowOptions) -> None:
    """How wide a random network must be to hold a given one, as printed and corrected."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_width_lines, make_width_table
    from snnprune.jobs.theory.width import theory_width

    screen, out = Screen(show, report=options.report, force=options.force), options.out
    found = theory_width(options)
    lines = [
        *format_width_lines(found),
        *([f"wrote widths.svg and widths.png to {out}"] if out else []),
    ]
    screen.result(make_width_table(found), *lines, report=found.report)


@theory_app.command()
@expand_options
def construct(options: ConstructOptions, show: ShowOptions) -> None:
    """Draw random networks, find the given one in them, and compare spike for spike."""
    from snnprune.cli.console import Screen
    from snnprune.cli.theory_tables import format_construct_lines, make_construct_table
    from snnprune.jobs.theory.construct import theory_construct

    screen = Screen(show, report=options.report, force=options.force)
    found = theory_construct(options, screen.progress())
    lines = format_construct_lines(found, options.delta)
    screen.result(make_construct_table(found), *lines, report=found.report)
