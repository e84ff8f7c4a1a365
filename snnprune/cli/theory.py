"""`theory` and `analyze`: what the paper promises, in numbers, and tried; and what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.cli.tables import format_uncounted_lines, make_number_table, make_plain_table
from snnprune.errors import format_percent, format_small_percent, layer_name, make_printable
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

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.jobs.theory.analyze import AnalyzeResult, Effect, LayerEffect
    from snnprune.jobs.theory.construct import ConstructResult
    from snnprune.jobs.theory.crisis import CrisisResult
    from snnprune.jobs.theory.width import WidthResult
    from snnprune.measure.evaluation import Evaluation

LONGEST = 10**15  # digits that a column has room for
EMPTY = 0.5  # a bound above it excludes nothing worth knowing
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
    from snnprune.jobs.theory.construct import theory_construct

    screen = Screen(show, report=options.report, force=options.force)
    found = theory_construct(options, screen.progress())
    lines = format_construct_lines(found, options.delta)
    screen.result(make_construct_table(found), *lines, report=found.report)


def make_analysis_tables(found: AnalyzeResult, width: int, *, each: bool) -> list[Table]:
    """A row for each level; with `each` a table for each of them too."""
    return [
        _make_level_table(found, width),
        *(_make_layer_table(one, width) for one in found.effects if each),
    ]


def format_analysis_lines(found: AnalyzeResult) -> list[str]:
    """How good the predictions are."""
    layers = [layer for one in found.effects for layer in one.layers]
    good = sum(layer.good for layer in layers)
    dense = _format_accuracy(found.dense)
    return [
        f"dense accuracy {dense}",
        f"predicted within a factor of two in {good} of {len(layers)} cases",
        *format_uncounted_lines(found.uncounted),
    ]


def _make_level_table(found: AnalyzeResult, width: int) -> Table:
    rows = []
    for one in found.effects:
        worst = one.find_first_to_break()
        good = f"{sum(layer.good for layer in one.layers)}/{len(one.layers)}"
        numbers = [] if one.parameters is None else [f"{one.parameters:,}"]
        flips = (
            [format_small_percent(worst.predicted), format_small_percent(worst.measured)]
            if worst
            else ["-"] * 2
        )
        rows.append(
            [
                f"{one.level}: {_format_name(worst) if worst else '-'}",
                *flips,
                good,
                _format_accuracy(one.evaluation),
                *numbers,
            ]
        )
    titles = ["level: first to break", "predicted", "flipped", "good", "accuracy"]
    stored = any(one.parameters is not None for one in found.effects)
    return make_number_table([*titles, *(["numbers"] if stored else [])], rows, width)


def _make_layer_table(one: Effect, width: int) -> Table:
    rows = [
        [
            _format_name(layer),
            f"{layer.error:.3g}",
            format_small_percent(layer.predicted),
            format_small_percent(layer.measured),
            "-" if layer.correlation is None else f"{layer.correlation:.2f}",
        ]
        for layer in one.layers
    ]
    return make_number_table([one.level, "E|du|", "predicted", "flipped", "ranks"], rows, width)


def _format_name(layer: LayerEffect) -> str:
    return layer_name(layer.layer) if layer.layer else layer.neuron


def _format_accuracy(evaluation: Evaluation | None) -> str:
    return format_percent(evaluation.accuracy if evaluation else None, 2)


def make_crisis_table(found: CrisisResult, width: int) -> Table:
    """A row for each layer and neuron, means over channels."""
    rows = []
    for one in found.crises:
        shares = (
            one.compute_flipped(),
            one.compute_estimate(),
            one.compute_counted(),
            one.near,
            one.bound,
        )
        cells = (format_small_percent(float(each.mean())) for each in shares)
        rank = one.compute_correlation()
        rows.append([layer_name(one.layer), *cells, "-" if rank is None else f"{rank:.2f}"])
    titles = ["layer alone", "flipped", "Gaussian", "counted", "near", "bound", "ranks"]
    return make_number_table(titles, rows, width)


def make_density_table(found: CrisisResult, width: int) -> Table:
    """A row for each layer, means over channels: what bounds and estimates are made of."""
    rows = [
        [
            layer_name(one.layer),
            f"{float(one.densities.gaussian.mean()):.3g}",
            f"{float(one.densities.counted.mean()):.3g}",
            f"{float(one.densities.compute_log_distance().median()):.2f}",
            f"{float(one.error.mean()):.3g}",
            f"{float(one.radius.mean()):.3g}",
            f"{union:.3g}",
        ]
        for one, union in zip(found.crises, found.compute_unions(), strict=True)
    ]
    titles = ["at the threshold", "Gaussian", "counted", "apart", "eps", "radius", "Thm 3.5"]
    return make_number_table(titles, rows, width)


def format_crisis_lines(found: CrisisResult) -> list[str]:
    """What it comes to in the whole network, and where the bound says nothing any more."""
    empty = sum(float(one.bound.mean()) > EMPTY for one in found.crises)
    layers = len(found.crises)
    return [
        f"the bound is above {EMPTY:.0%} and says little for {empty} of {layers} layers",
        f"summed over the neurons of a layer (Theorem 3.5) it is above 1 for "
        f"{sum(union > 1 for union in found.compute_unions())} of {layers}",
        _format_whole_line(found),
        *_format_unfollowed_lines(found),
        *format_uncounted_lines(found.uncounted),
    ]


def _format_unfollowed_lines(found: CrisisResult) -> list[str]:
    """Where the neighbourhood is not that of Lemma 3.4."""
    names = ", ".join(layer_name(one.layer) for one in found.crises if not one.followed)
    return (
        [f"r is the furthest that was seen, not what eps and decay give: {names}"] if names else []
    )


def _format_whole_line(found: CrisisResult) -> str:
    """Whether the bound of the whole network says anything."""
    if not found.accumulated:
        return "over layers and steps there is no bound: a neuron runs more than once in a step"
    if (place := found.find_first_empty()) is not None:
        neuron, step = place
        return (
            f"summed over layers and steps it passes 1, and says nothing, from "
            f"{make_printable(neuron)} at step {step} on"
        )
    last = found.accumulated[-1].bound
    if last is None:
        return "over layers and steps there is no bound: an error comes by a way not followed"
    return f"summed over layers and steps it is {float(last[-1]):.2g} at the end"


def make_accumulation_table(found: CrisisResult, width: int) -> Table:
    """All layers changed at once: a row for each neuron, at the first and at the last step."""
    last = found.calibration.time_steps
    times = [1] if last == 1 else [1, last]
    rows = []
    for one in found.accumulated:
        cells = [format_small_percent(float(one.flipped[t - 1])) for t in times]
        cells += [format_small_percent(float(one.hit[-1]))]
        cells += [_format_last(one.near), _format_last(one.bound)]
        rows.append([layer_name(one.neuron), *cells])
    flips = [f"flips t={t}" for t in times]
    return make_number_table(["all layers changed", *flips, "hit", "near", "bound"], rows, width)


def _format_last(values: Tensor | None) -> str:
    return "-" if values is None else f"{float(values[-1]):.2g}"


def make_width_table(found: WidthResult) -> Table:
    """A row for each statement."""
    table = make_plain_table()
    table.add_column("statement", no_wrap=True)
    table.add_column("of what")
    for title in ("error", "k as printed", "k corrected"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        counts = _format_width(row.printed), _format_width(row.corrected)
        table.add_row(row.statement, row.what, f"{row.error:.3g}", *counts)
    return table


def _format_width(k: int) -> str:
    return f"{k:,}" if k < LONGEST else f"{k:.3g}"


def format_width_lines(found: WidthResult) -> list[str]:
    """The constants behind the table."""
    setting = found.setting
    return [
        f"C_th = {setting.firing:.4g}: share of weights that alone reach the threshold",
        f"C = {setting.crisis:.4g}: chance of a flip per unit of error (2 p_sup / (1 - beta))",
        f"errors must be below delta / (N C L T) = {found.reach:.3g}",
    ]


def make_construct_table(found: ConstructResult) -> Table:
    """A row for each statement that was tried."""
    table = make_plain_table()
    for title in ("statement", "k", "allowed", "exact", "failed", "95 % interval"):
        table.add_column(title, justify="left" if title == "statement" else "right", no_wrap=True)
    for step in found.steps:
        exact = "-" if step.exact is None else f"{step.exact:.4f}"
        cells = step.name, _format_width(step.width), f"{step.promised:g}", exact
        failed = f"{step.count.failures} of {step.count.trials}"
        table.add_row(*cells, failed, _format_interval(step.count.compute_interval()))
    return table


def format_construct_lines(found: ConstructResult, allowed: float) -> list[str]:
    """What the whole networks came to."""
    widest = max(network.width for network in found.networks)
    flipped = sum(network.compared.flipped for network in found.networks)
    places = sum(network.compared.places for network in found.networks)
    lines = [
        f"{found.equal.trials} whole networks, k up to {widest:,}: "
        f"{found.within.failures} without a partner for every weight "
        f"({_format_interval(found.within.compute_interval())}; allowed {allowed:g})",
        f"other spikes in {found.equal.failures} networks "
        f"({_format_interval(found.equal.compute_interval())}), "
        f"{flipped:,} of {places:,} spikes in all",
    ]
    if (one := found.one) is not None:
        lines.append(
            f"in {one.failures} networks another spike on an input at random "
            f"({_format_interval(one.compute_interval())}; allowed {allowed:g})"
        )
    return lines


def _format_interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.4f} to {high:.4f}"
