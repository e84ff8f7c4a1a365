"""What each layer costs alone, on 80 columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.tables import abreast, excluded_lines, number_table
from snnprune.data.dataset import worded
from snnprune.text import layer_name, percent

if TYPE_CHECKING:
    from snnprune.jobs.diff import Diff
    from snnprune.jobs.sensitivity.options import SensitivityOptions
    from snnprune.jobs.sensitivity.sensitivity import Sensitivity
    from snnprune.jobs.sensitivity.trials import Trial
    from snnprune.measure.agreement import Agreement, Change


def diff_tables(diff: Diff, width: int, *, by_step: bool) -> list[Table]:
    """Weights; where both were run, spikes; then what else changed."""
    layers = ("layer", "weights", "A zero", "B zero", "changed", "|B-A|/|A|", "overlap")
    tables = [
        number_table(
            layers, [[layer_name(one.key), *_of_layer(one.change)] for one in diff.layers], width
        )
    ]
    if diff.agreement and diff.agreement.spikes:
        spikes = diff.agreement.spikes.items()
        rows = [
            [name, *(f"{r:.4f}" for r in one.rates), percent(one.share)] for name, one in spikes
        ]
        tables.append(number_table(("neuron", "A fires", "B fires", "same"), rows, width))
        tables += abreast(*_by_step(diff.agreement), width) if by_step else []
    if diff.others:
        titles = ("other tensor", "values", "changed", "|B-A|/|A|")
        rows = [[one.key, *_of_other(one.change)] for one in diff.others]
        tables.append(number_table(titles, rows, width))
    return tables


def diff_lines(diff: Diff) -> list[str]:
    """The same in numbers for all of both networks."""
    total = diff.compute_total()
    lines = [
        f"changed {total.changed:,} of {total.values:,} weights, |B-A|/|A| {_relative(total)}, "
        f"kept weights overlap {total.overlap:.1%}",
        f"zeros: {total.zeros_first:,} in A, {total.zeros_other:,} in B",
        *excluded_lines(diff.report),
    ]
    if diff.agreement is None:
        return [*lines, f"spikes and outputs not compared: {diff.not_run}"]
    return [*lines, *agreement_lines(diff.agreement, diff.report["split"], ("A", "B"))]


def agreement_lines(found: Agreement, split: str, names: tuple[str, str]) -> list[str]:
    """Spikes, outputs and answers of two networks on the images of `split`."""
    lines, share = [], found.share()
    if share is not None:
        lines.append(f"spikes: {share:.2%} the same")
    if found.outputs is not None:
        outputs = found.outputs
        lines.append(
            f"outputs: same class {outputs.share:.2%}, difference {outputs.mean_difference:.3g}, "
            f"cosine {outputs.mean_cosine:.4f}, divergence {outputs.mean_divergence:.3g}"
        )
    if found.answers is None:
        return [*lines, f"{found.samples:,} {worded(split)} images without labels: no accuracy"]
    answers, (a, b) = found.answers, names
    first, other = answers.accuracies
    return [
        *lines,
        f"accuracy {first:.2%} and {other:.2%} ({answers.labelled:,} {worded(split)} images)",
        f"right: both {answers.both:,}, only {a} {answers.only_first:,}, "
        f"only {b} {answers.only_other:,}, neither {answers.neither:,}",
    ]


def _by_step(found: Agreement) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the shares of the same spikes, by time step."""
    shares = {name: spikes.shares for name, spikes in found.spikes.items()}
    steps = max(map(len, shares.values()))
    rows = [
        [name, *map(percent, by_step), *["-"] * (steps - len(by_step))]
        for name, by_step in shares.items()
    ]
    return ["same at step", *(str(step + 1) for step in range(steps))], rows


def _of_layer(change: Change) -> list[str]:
    zeros = (f"{zeros / change.values:.1%}" for zeros in (change.zeros_first, change.zeros_other))
    return [
        *(f"{change.values:,}", *zeros, f"{change.changed / change.values:.1%}"),
        *(_relative(change), f"{change.overlap:.1%}"),
    ]


def _of_other(change: Change) -> list[str]:
    return [f"{change.values:,}", f"{change.changed:,}", _relative(change)]


def _relative(change: Change) -> str:
    return "-" if change.relative is None else f"{change.relative:.3f}"


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
