"""`score` and `prune`."""

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.jobs.options import ScoreOptions
from snnprune.jobs.prune.options import PruneOptions


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
