"""What two networks have in common, on 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.number_tables import abreast, number_table
from snnprune.cli.tables import excluded_lines
from snnprune.data import worded
from snnprune.notation import layer_name, percent

if TYPE_CHECKING:
    from snnprune.agreement import Agreement, Change
    from snnprune.jobs.diff import Diff


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
