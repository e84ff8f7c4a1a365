"""`diff` and `sensitivity`: commands that hold one network against another."""

from snnprune.cli.flags import ShowOptions
from snnprune.cli.options import expand_options
from snnprune.jobs.options import DiffOptions
from snnprune.jobs.sensitivity.options import SensitivityOptions


@expand_options
def diff(options: DiffOptions, show: ShowOptions) -> None:
    """Compare two checkpoints: weights, spikes, logits, answers. -v: spikes by time step."""
    from snnprune.cli.console import Screen
    from snnprune.cli.diff_tables import format_diff_lines, make_diff_tables
    from snnprune.jobs.diff import diff_checkpoints

    screen = Screen(show, report=options.report, force=options.force)
    found = diff_checkpoints(options, screen.progress())
    tables = make_diff_tables(found, screen.width, by_step=show.verbose)
    screen.result(*tables, *format_diff_lines(found), report=found.report)


@expand_options
def sensitivity(options: SensitivityOptions, show: ShowOptions) -> None:
    """Prune each layer alone, and see what it costs. -v: shares of unchanged classes too."""
    from snnprune.cli.console import Screen
    from snnprune.cli.diff_tables import format_sensitivity_lines, make_sensitivity_tables
    from snnprune.jobs.sensitivity.sensitivity import measure_sensitivity

    screen = Screen(show)
    found = measure_sensitivity(options, screen.progress())
    tables = make_sensitivity_tables(
        found, screen.width, sparsity=options.sparsity, classes=show.verbose
    )
    screen.result(*tables, *format_sensitivity_lines(found, options), report=found.report)
