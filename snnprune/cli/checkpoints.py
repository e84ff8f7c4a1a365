"""The commands that work on one checkpoint, from `inspect` to `export`; and `demo` and `env`."""

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.jobs.options import (
    CalibrateOptions,
    CheckOptions,
    DemoOptions,
    EvaluateOptions,
    ExportOptions,
    InspectOptions,
    ScoreOptions,
)
from snnprune.jobs.prune.options import PruneOptions


@expand_options
def env(show: ShowOptions) -> None:
    """Show versions, devices and paths."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.environment import collect_environment

    found = collect_environment()
    width = max(map(len, found))
    lines = [f"{name:{width}}  {value}" for name, value in found.items()]
    Screen(show).result(*lines, report={"ok": True, **found})


@expand_options
def check(options: CheckOptions, show: ShowOptions) -> None:
    """Hold a checkpoint against limits; exit code 4 if one is not kept."""
    from snnprune.cli.chips import format_chip_lines, make_chip_table
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import format_gate_lines, make_gate_table
    from snnprune.cli.tables import format_excluded_lines
    from snnprune.jobs.check import check_checkpoint

    screen = Screen(show, report=options.report, force=options.force, junit=options.junit)
    found = check_checkpoint(options, screen.progress())
    same = [] if options.sha256 is None else ["its SHA-256 is the one that was given"]
    tables = [] if found.chip is None else [make_chip_table(found.chip, screen.width)]
    tables += [make_gate_table(found.verdicts, screen.width)] if found.verdicts else []
    on_chip = [] if found.chip is None else format_chip_lines(found.chip)
    gates = format_gate_lines(found.verdicts)
    lines = [*on_chip, *same, *format_excluded_lines(found.report), *gates]
    screen.result(*tables, *lines, report=found.report)
    if found.error is not None:
        raise found.error


@expand_options
def export(options: ExportOptions, show: ShowOptions) -> None:
    """Write a checkpoint without its zeros, or for other programs; says what each kind weighs."""
    from snnprune.cli.chips import format_chip_lines
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import describe_chain, make_size_table
    from snnprune.jobs.export import export_checkpoint

    screen = Screen(show, report=options.report, force=options.force)
    found = export_checkpoint(options)
    lines = [f"wrote {options.out} ({found.written:,} bytes)"]
    if found.check is not None:
        lines = [describe_chain(found.check), *lines]
    if found.chip is not None:
        lines = [*format_chip_lines(found.chip), *lines]
    screen.result(make_size_table(found.sizes, options.values), *lines, report=found.report)


@expand_options
def demo(options: DemoOptions, show: ShowOptions) -> None:
    """Train, calibrate, prune, repair and evaluate on bundled images."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import make_demo_table
    from snnprune.jobs.demo import run_demo

    screen = Screen(show)
    found = run_demo(options, screen.progress())
    lines = [
        f"dense accuracy {found.dense.accuracy:.2%} ({found.dense.labelled:,} test images, "
        f"{found.minutes:.1f} minutes in all)",
        f"wrote {options.out}: report.html, report.md, report.json, accuracy.png, accuracy.svg, "
        "table.md, training/, pruned/",
    ]
    screen.result(make_demo_table(found.points), *lines, report=found.report)


@expand_options
def inspect(options: InspectOptions, show: ShowOptions) -> None:
    """Show what is in a checkpoint. Runs no code of the file."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import (
        format_excluded_lines,
        format_neuron_line,
        format_sparsity_line,
        format_unused_lines,
        make_layer_table,
        make_link_table,
        make_neuron_table,
    )
    from snnprune.jobs.inspect import inspect_checkpoint

    screen = Screen(show)
    found = inspect_checkpoint(options, screen.progress())
    lines = [
        f"{found.checkpoint.container}, {len(found.checkpoint.tensors):,} tensors, "
        f"{len(found.skipped):,} of them not prunable",
        format_sparsity_line(found.totals),
        *format_excluded_lines(found.report),
        *(f"not prunable: {key}, made by {how}" for key, how in found.made.items()),
        *format_unused_lines(found.report),
    ]
    tables = [make_layer_table(found.rows, screen.width)]
    if found.unlinked is None:
        tables.append(make_link_table(found.rows, screen.width))
        tables.append(make_neuron_table(found.report["neurons"], screen.width))
        lines.append(format_neuron_line(found.report["neurons"]))
    else:
        lines.append(f"links not known: {found.unlinked}")
    screen.result(*tables, *lines, report=found.report)


@expand_options
def calibrate(options: CalibrateOptions, show: ShowOptions) -> None:
    """Take firing rates and membrane statistics for later runs."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import format_excluded_lines, make_layer_table
    from snnprune.jobs.calibrate import calibrate_checkpoint
    from snnprune.report import name_samples_of

    screen = Screen(show, report=options.report, force=options.force)
    found = calibrate_checkpoint(options, screen.progress())
    noun = name_samples_of(found.report)
    seen = f"{found.calibration.samples:,} {noun}, T = {found.calibration.time_steps}"
    line = f"wrote {options.out} ({seen})"
    lines = [*format_excluded_lines(found.report), line]
    screen.result(make_layer_table(found.rows, screen.width), *lines, report=found.report)


@expand_options
def evaluate(options: EvaluateOptions, show: ShowOptions) -> None:
    """Measure accuracy, loss, firing rates, sparsity, synaptic operations and energy."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import (
        format_accuracy_line,
        format_excluded_lines,
        format_sparsity_line,
        format_work_lines,
        make_firing_table,
        make_work_table,
    )
    from snnprune.jobs.evaluate import evaluate_checkpoint
    from snnprune.report import name_samples_of

    screen = Screen(show, report=options.report, force=options.force)
    found = evaluate_checkpoint(options, screen.progress())
    screen.result(
        make_firing_table(found.evaluation),
        make_work_table(found, screen.width),
        format_sparsity_line(found.totals),
        *format_excluded_lines(found.report),
        *format_work_lines(found),
        format_accuracy_line(found.evaluation, noun=name_samples_of(found.report)),
        report=found.report,
    )


@expand_options
def score(options: ScoreOptions, show: ShowOptions) -> None:
    """Score every weight; larger means keep."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import format_excluded_lines, format_fallback_lines, make_layer_table
    from snnprune.jobs.score import score_checkpoint

    screen = Screen(show, report=options.report, force=options.force)
    found = score_checkpoint(options, screen.progress())
    lines = [
        f"criterion {found.scores.criterion} ({found.why})",
        *format_fallback_lines(found.rows),
        *format_excluded_lines(found.report),
        *([f"wrote {options.out}"] if options.out else []),
    ]
    screen.result(
        make_layer_table(found.rows, screen.width, criteria=True), *lines, report=found.report
    )


@expand_options
def prune(options: PruneOptions, show: ShowOptions) -> None:
    """Prune a checkpoint; the result has the same keys, shapes and types."""
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import format_prune_lines, make_prune_tables
    from snnprune.jobs.prune.prune import prune_checkpoint

    screen = Screen(show, report=options.report, force=options.force, junit=options.junit)
    found = prune_checkpoint(options, screen.progress())
    screen.result(
        *make_prune_tables(found, screen.width), *format_prune_lines(found), report=found.report
    )
    if found.error is not None:
        raise found.error
