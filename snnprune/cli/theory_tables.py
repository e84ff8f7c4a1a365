"""What `theory` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.tables import number_table, plain_table, uncounted_lines
from snnprune.text import layer_name, percent, printable, small_percent

if TYPE_CHECKING:
    from torch import Tensor

    from snnprune.jobs.theory.analyze import Analyzed
    from snnprune.jobs.theory.construct import Constructed
    from snnprune.jobs.theory.crisis import CrisisFound
    from snnprune.jobs.theory.measuring import Effect, LayerEffect
    from snnprune.jobs.theory.width import Widths
    from snnprune.measure.evaluation import Evaluation
    from snnprune.theory.trials import Count


def analysis_tables(found: Analyzed, width: int, *, each: bool) -> list[Table]:
    """A row for each level; with `each` a table for each of them too."""
    return [_levels(found, width), *(_layers(one, width) for one in found.effects if each)]


def analysis_lines(found: Analyzed) -> list[str]:
    """How good the predictions are."""
    layers = [layer for one in found.effects for layer in one.layers]
    good = sum(layer.good for layer in layers)
    dense = _accuracy(found.dense)
    return [
        f"dense accuracy {dense}",
        f"predicted within a factor of two in {good} of {len(layers)} cases",
        *uncounted_lines(found.uncounted),
    ]


def _levels(found: Analyzed, width: int) -> Table:
    rows = []
    for one in found.effects:
        worst = one.find_first_to_break()
        good = f"{sum(layer.good for layer in one.layers)}/{len(one.layers)}"
        numbers = [] if one.parameters is None else [f"{one.parameters:,}"]
        flips = (
            [small_percent(worst.predicted), small_percent(worst.measured)] if worst else ["-"] * 2
        )
        rows.append(
            [
                f"{one.level}: {_name(worst) if worst else '-'}",
                *flips,
                good,
                _accuracy(one.evaluation),
                *numbers,
            ]
        )
    titles = ["level: first to break", "predicted", "flipped", "good", "accuracy"]
    stored = any(one.parameters is not None for one in found.effects)
    return number_table([*titles, *(["numbers"] if stored else [])], rows, width)


def _layers(one: Effect, width: int) -> Table:
    rows = [
        [
            _name(layer),
            f"{layer.error:.3g}",
            small_percent(layer.predicted),
            small_percent(layer.measured),
            "-" if layer.correlation is None else f"{layer.correlation:.2f}",
        ]
        for layer in one.layers
    ]
    return number_table([one.level, "E|du|", "predicted", "flipped", "ranks"], rows, width)


def _name(layer: LayerEffect) -> str:
    return layer_name(layer.layer) if layer.layer else layer.neuron


def _accuracy(evaluation: Evaluation | None) -> str:
    return percent(evaluation.accuracy if evaluation else None, 2)


LONGEST = 10**15  # digits that a column has room for
EMPTY = 0.5  # a bound above it excludes nothing worth knowing


def crisis_table(found: CrisisFound, width: int) -> Table:
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
        cells = (small_percent(float(each.mean())) for each in shares)
        rank = one.compute_correlation()
        rows.append([layer_name(one.layer), *cells, "-" if rank is None else f"{rank:.2f}"])
    titles = ["layer alone", "flipped", "Gaussian", "counted", "near", "bound", "ranks"]
    return number_table(titles, rows, width)


def density_table(found: CrisisFound, width: int) -> Table:
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
    return number_table(titles, rows, width)


def crisis_lines(found: CrisisFound) -> list[str]:
    """What it comes to in the whole network, and where the bound says nothing any more."""
    empty = sum(float(one.bound.mean()) > EMPTY for one in found.crises)
    layers = len(found.crises)
    return [
        f"the bound is above {EMPTY:.0%} and says little for {empty} of {layers} layers",
        f"summed over the neurons of a layer (Theorem 3.5) it is above 1 for "
        f"{sum(union > 1 for union in found.compute_unions())} of {layers}",
        _whole_line(found),
        *_unfollowed_lines(found),
        *uncounted_lines(found.uncounted),
    ]


def _unfollowed_lines(found: CrisisFound) -> list[str]:
    """Where the neighbourhood is not that of Lemma 3.4."""
    names = ", ".join(layer_name(one.layer) for one in found.crises if not one.followed)
    return (
        [f"r is the furthest that was seen, not what eps and decay give: {names}"] if names else []
    )


def _whole_line(found: CrisisFound) -> str:
    """Whether the bound of the whole network says anything."""
    if not found.accumulated:
        return "over layers and steps there is no bound: a neuron runs more than once in a step"
    if (place := found.find_first_empty()) is not None:
        neuron, step = place
        return (
            f"summed over layers and steps it passes 1, and says nothing, from "
            f"{printable(neuron)} at step {step} on"
        )
    last = found.accumulated[-1].bound
    if last is None:
        return "over layers and steps there is no bound: an error comes by a way not followed"
    return f"summed over layers and steps it is {float(last[-1]):.2g} at the end"


def accumulation_table(found: CrisisFound, width: int) -> Table:
    """All layers changed at once: a row for each neuron, at the first and at the last step."""
    last = found.calibration.time_steps
    times = [1] if last == 1 else [1, last]
    rows = []
    for one in found.accumulated:
        cells = [small_percent(float(one.flipped[t - 1])) for t in times]
        cells += [small_percent(float(one.hit[-1]))]
        cells += [
            "-" if each is None else f"{float(each[-1]):.2g}" for each in (one.near, one.bound)
        ]
        rows.append([layer_name(one.neuron), *cells])
    flips = [f"flips t={t}" for t in times]
    return number_table(["all layers changed", *flips, "hit", "near", "bound"], rows, width)


def _last(values: Tensor | None) -> str:
    return "-" if values is None else f"{float(values[-1]):.2g}"


def width_table(found: Widths) -> Table:
    """A row for each statement."""
    table = plain_table()
    table.add_column("statement", no_wrap=True)
    table.add_column("of what")
    for title in ("error", "k as printed", "k corrected"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        counts = _width(row.printed), _width(row.corrected)
        table.add_row(row.statement, row.what, f"{row.error:.3g}", *counts)
    return table


def _width(k: int) -> str:
    return f"{k:,}" if k < LONGEST else f"{k:.3g}"


def width_lines(found: Widths) -> list[str]:
    """The constants behind the table."""
    setting = found.setting
    return [
        f"C_th = {setting.firing:.4g}: share of weights that alone reach the threshold",
        f"C = {setting.crisis:.4g}: chance of a flip per unit of error (2 p_sup / (1 - beta))",
        f"errors must be below delta / (N C L T) = {found.reach:.3g}",
    ]


def construct_table(found: Constructed) -> Table:
    """A row for each statement that was tried."""
    table = plain_table()
    for title in ("statement", "k", "allowed", "exact", "failed", "95 % interval"):
        table.add_column(title, justify="left" if title == "statement" else "right", no_wrap=True)
    for step in found.steps:
        exact = "-" if step.exact is None else f"{step.exact:.4f}"
        cells = step.name, _width(step.width), f"{step.promised:g}", exact
        table.add_row(*cells, _share(step.count), _interval(step.count))
    return table


def construct_lines(found: Constructed, allowed: float) -> list[str]:
    """What the whole networks came to."""
    widest = max(network.width for network in found.networks)
    flipped = sum(network.compared.flipped for network in found.networks)
    places = sum(network.compared.places for network in found.networks)
    lines = [
        f"{found.equal.trials} whole networks, k up to {widest:,}: "
        f"{found.within.failures} without a partner for every weight "
        f"({_interval(found.within)}; allowed {allowed:g})",
        f"other spikes in {found.equal.failures} networks ({_interval(found.equal)}), "
        f"{flipped:,} of {places:,} spikes in all",
    ]
    if (one := found.one) is not None:
        lines.append(
            f"in {one.failures} networks another spike on an input at random "
            f"({_interval(one)}; allowed {allowed:g})"
        )
    return lines


def _share(found: Count) -> str:
    return f"{found.failures} of {found.trials}"


def _interval(found: Count) -> str:
    low, high = found.compute_interval()
    return f"{low:.4f} to {high:.4f}"
