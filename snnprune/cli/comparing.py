"""`diff` and `sensitivity`: commands that hold one network against another, and what they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.cli.tables import format_excluded_lines, make_number_table, make_tables_abreast
from snnprune.errors import format_percent, format_split, layer_name
from snnprune.jobs.options import DiffOptions, SensitivityOptions
from snnprune.report import name_samples_of

if TYPE_CHECKING:
    from snnprune.jobs.diff import CheckpointDiff
    from snnprune.jobs.sensitivity import LayerTrial, SensitivityResult
    from snnprune.measure import Change
    from snnprune.measure.agreement import Agreement


@expand_options
def diff(options: DiffOptions, show: ShowOptions) -> None:
    """Compare two checkpoints: weights, spikes, logits, answers. -v: spikes by time step."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.diff import diff_checkpoints

    screen = Screen(show, report=options.report, force=options.force)
    found = diff_checkpoints(options, screen.progress())
    tables = make_diff_tables(found, screen.width, by_step=show.verbose)
    screen.result(*tables, *format_diff_lines(found), report=found.report)


@expand_options
def sensitivity(options: SensitivityOptions, show: ShowOptions) -> None:
    """Prune each layer alone, and see what it costs. -v: shares of unchanged classes too."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.sensitivity import measure_sensitivity

    screen = Screen(show)
    found = measure_sensitivity(options, screen.progress())
    tables = make_sensitivity_tables(
        found, screen.width, sparsity=options.sparsity, classes=show.verbose
    )
    screen.result(*tables, *format_sensitivity_lines(found, options), report=found.report)


def make_diff_tables(diff: CheckpointDiff, width: int, *, by_step: bool) -> list[Table]:
    """Weights; where both were run, spikes; then what else changed."""
    layers = ("layer", "weights", "A zero", "B zero", "changed", "|B-A|/|A|", "overlap")
    tables = [
        make_number_table(
            layers,
            [[layer_name(one.key), *_format_layer_row(one.change)] for one in diff.layers],
            width,
        )
    ]
    if diff.agreement and diff.agreement.spikes:
        spikes = diff.agreement.spikes.items()
        rows = [
            [name, *(f"{r:.4f}" for r in one.rates), format_percent(one.share)]
            for name, one in spikes
        ]
        tables.append(make_number_table(("neuron", "A fires", "B fires", "same"), rows, width))
        tables += make_tables_abreast(*_make_step_rows(diff.agreement), width) if by_step else []
    if diff.others:
        titles = ("other tensor", "values", "changed", "|B-A|/|A|")
        rows = [[one.key, *_format_other_row(one.change)] for one in diff.others]
        tables.append(make_number_table(titles, rows, width))
    return tables


def format_diff_lines(diff: CheckpointDiff) -> list[str]:
    """The same in numbers for all of both networks."""
    total = diff.compute_total()
    lines = [
        f"changed {total.changed:,} of {total.values:,} weights, "
        f"|B-A|/|A| {_format_relative(total)}, kept weights overlap {total.overlap:.1%}",
        f"zeros: {total.zeros_first:,} in A, {total.zeros_other:,} in B",
        *format_excluded_lines(diff.report),
    ]
    if diff.agreement is None:
        return [*lines, f"spikes and outputs not compared: {diff.not_run}"]
    found, split, noun = diff.agreement, diff.report["split"], name_samples_of(diff.report)
    return [*lines, *format_agreement_lines(found, split, ("A", "B"), noun=noun)]


def format_agreement_lines(
    found: Agreement, split: str, names: tuple[str, str], *, noun: str
) -> list[str]:
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
        return [
            *lines,
            f"{found.samples:,} {format_split(split)} {noun} without labels: no accuracy",
        ]
    answers, (a, b) = found.answers, names
    first, other = answers.accuracies
    return [
        *lines,
        f"accuracy {first:.2%} and {other:.2%} ({answers.labelled:,} {format_split(split)} {noun})",
        f"right: both {answers.both:,}, only {a} {answers.only_first:,}, "
        f"only {b} {answers.only_other:,}, neither {answers.neither:,}",
    ]


def _make_step_rows(found: Agreement) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the shares of the same spikes, by time step."""
    shares = {name: spikes.shares for name, spikes in found.spikes.items()}
    steps = max(map(len, shares.values()))
    rows = [
        [name, *map(format_percent, by_step), *["-"] * (steps - len(by_step))]
        for name, by_step in shares.items()
    ]
    return ["same at step", *(str(step + 1) for step in range(steps))], rows


def _format_layer_row(change: Change) -> list[str]:
    zeros = (f"{zeros / change.values:.1%}" for zeros in (change.zeros_first, change.zeros_other))
    return [
        *(f"{change.values:,}", *zeros, f"{change.changed / change.values:.1%}"),
        *(_format_relative(change), f"{change.overlap:.1%}"),
    ]


def _format_other_row(change: Change) -> list[str]:
    return [f"{change.values:,}", f"{change.changed:,}", _format_relative(change)]


def _format_relative(change: Change) -> str:
    return "-" if change.relative is None else f"{change.relative:.3f}"


def make_sensitivity_tables(
    found: SensitivityResult, width: int, *, sparsity: float, classes: bool
) -> list[Table]:
    """A line per layer: accuracy, spikes behind it, divergence and the sparsity of the recipe."""
    measures: dict[str, Callable[[LayerTrial], str]] = {
        "accuracy": lambda trial: format_percent(trial.accuracy),
        "same class": lambda trial: format_percent(trial.same_class),
        "same spikes": lambda trial: format_percent(trial.compute_spike_agreement()),
    }
    left_out = {"accuracy"} if found.dense is None else set() if classes else {"same class"}
    tables = [
        table
        for title, value in measures.items()
        if title not in left_out
        for table in make_tables_abreast(*_make_layer_rows(title, found, value), width)
    ]
    titles, rows = _make_layer_rows("divergence", found, lambda trial: f"{trial.divergence:.3f}")
    for row, (key, count) in zip(rows, found.counts.items(), strict=True):
        row.append(f"{count / found.sizes[key]:.1%}")
    return [*tables, *make_tables_abreast([*titles, f"for {sparsity:.4g}"], rows, width)]


def format_sensitivity_lines(found: SensitivityResult, options: SensitivityOptions) -> list[str]:
    """How it was measured, and what all layers together come to."""
    repaired = found.report["calibration_samples"]
    pruned, weights = sum(found.counts.values()), sum(found.sizes.values())
    noun = name_samples_of(found.report)
    lines = [
        f"{len(found.trials)} trials on {found.together.samples:,} "
        f"{format_split(found.split)} {noun}",
        f"criterion {found.plan.criterion}, repair {found.plan.repair} on {repaired:,} {noun}",
        *format_excluded_lines(found.report),
        f"all layers together for the least divergence: pruned {pruned:,} of {weights:,} weights",
        *format_agreement_lines(found.together, found.split, ("dense", "pruned"), noun=noun),
    ]
    files = ", ".join(path.name for path in options.files)
    return [*lines, f"wrote {files} to {options.out}"] if files else lines


def _make_layer_rows(
    title: str, found: SensitivityResult, value: Callable[[LayerTrial], str]
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a measure: layers by the sparsity of that layer alone."""
    sparsities = dict.fromkeys(trial.sparsity for trial in found.trials)
    rows = [
        [layer_name(key), *(value(trial) for trial in found.trials if trial.weight == key)]
        for key in found.sizes
    ]
    return [title, *(f"{sparsity:.4g}" for sparsity in sparsities)], rows
