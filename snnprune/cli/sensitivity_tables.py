"""What each layer costs alone, on 80 columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.diff_tables import agreement_lines
from snnprune.cli.number_tables import abreast
from snnprune.cli.tables import excluded_lines
from snnprune.data import worded
from snnprune.notation import layer_name, percent

if TYPE_CHECKING:
    from snnprune.jobs.sensitivity import Sensitivity, SensitivityOptions, Trial


def sensitivity_tables(
    found: Sensitivity, width: int, *, target: float, classes: bool
) -> list[Table]:
    """A line per layer: accuracy, spikes behind it, divergence and the sparsity of the recipe."""
    measures: dict[str, Callable[[Trial], str]] = {
        "accuracy": lambda trial: percent(trial.accuracy),
        "same class": lambda trial: percent(trial.same_class),
        "same spikes": lambda trial: percent(trial.compute_spike_agreement()),
    }
    left_out = {"accuracy"} if found.dense is None else set() if classes else {"same class"}
    tables = [
        table
        for title, value in measures.items()
        if title not in left_out
        for table in abreast(*_by_layer(title, found, value), width)
    ]
    titles, rows = _by_layer("divergence", found, lambda trial: f"{trial.divergence:.3f}")
    for row, (key, count) in zip(rows, found.counts.items(), strict=True):
        row.append(f"{count / found.sizes[key]:.1%}")
    return [*tables, *abreast([*titles, f"for {target:.4g}"], rows, width)]


def sensitivity_lines(found: Sensitivity, options: SensitivityOptions) -> list[str]:
    """How it was measured, and what all layers together come to."""
    repaired = found.report["calibration_samples"]
    pruned, weights = sum(found.counts.values()), sum(found.sizes.values())
    lines = [
        f"{len(found.trials)} trials on {found.together.samples:,} {worded(found.split)} images",
        f"criterion {found.plan.criterion}, repair {found.plan.repair} on {repaired:,} images",
        *excluded_lines(found.report),
        f"all layers together for the least divergence: pruned {pruned:,} of {weights:,} weights",
        *agreement_lines(found.together, found.split, ("dense", "pruned")),
    ]
    files = ", ".join(path.name for path in options.files)
    return [*lines, f"wrote {files} to {options.folder}"] if files else lines


def _by_layer(
    title: str, found: Sensitivity, value: Callable[[Trial], str]
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a measure: layers by the sparsity of that layer alone."""
    sparsities = dict.fromkeys(trial.sparsity for trial in found.trials)
    rows = [
        [layer_name(key), *(value(trial) for trial in found.trials if trial.weight == key)]
        for key in found.sizes
    ]
    return [title, *(f"{sparsity:.4g}" for sparsity in sparsities)], rows
