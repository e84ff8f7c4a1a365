"""What `analyze` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.number_tables import number_table, uncounted_lines
from snnprune.notation import layer_name, percent, small_percent

if TYPE_CHECKING:
    from snnprune.evaluation import Evaluation
    from snnprune.jobs.theory.analyze import Analyzed
    from snnprune.jobs.theory.effects import Effect, LayerEffect


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
