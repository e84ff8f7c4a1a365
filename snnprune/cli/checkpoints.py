"""`inspect`, `calibrate` and `eval`: commands that look at a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import ShowFlags, SubjectFlags, spread


@spread
def inspect(subject: SubjectFlags, show: ShowFlags) -> None:
    """Show what is in a checkpoint. Runs no code of the file."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import layer_table, link_table, sparsity_line
    from snnprune.jobs.inspect import inspect_checkpoint

    screen = Screen(show)
    found = inspect_checkpoint(subject.options())
    lines = [
        f"{found.checkpoint.container}, {len(found.checkpoint.tensors):,} tensors, "
        f"{len(found.skipped):,} of them not prunable",
        sparsity_line(found.totals),
    ]
    links = [link_table(found.rows)] if found.unlinked is None else []
    lines += [] if found.unlinked is None else [f"links not known: {found.unlinked}"]
    screen.result(layer_table(found.rows, screen.width), *links, *lines, report=found.report)


@spread
def calibrate(
    subject: SubjectFlags,
    show: ShowFlags,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the statistics go.")
    ],
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to look at.")
    ] = 1024,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Take firing rates and membrane statistics for later runs."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import layer_table
    from snnprune.jobs.calibrate import calibrate_checkpoint

    screen = Screen(show)
    found = calibrate_checkpoint(
        subject.options(samples), out, force=force, progress=screen.progress()
    )
    line = f"wrote {out} ({found.calibration.samples:,} images, T = {found.calibration.time_steps})"
    screen.result(layer_table(found.rows, screen.width), line, report=found.report)


@spread
def evaluate(
    subject: SubjectFlags,
    show: ShowFlags,
    split: Annotated[str, typer.Option(metavar="NAME", help="test, validation or train.")] = "test",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Measure accuracy, loss, firing rates and sparsity."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import accuracy_line, firing_table, sparsity_line
    from snnprune.errors import UsageError
    from snnprune.jobs.evaluate import evaluate_checkpoint

    if split not in ("test", "validation", "train"):
        raise UsageError(
            f"unknown split {split!r}", field="--split", hint="choose test, validation or train"
        )
    screen = Screen(show)
    found = evaluate_checkpoint(
        subject.options(), split=split, limit=samples, progress=screen.progress()
    )
    screen.result(
        firing_table(found.evaluation),
        sparsity_line(found.totals),
        accuracy_line(found.evaluation, split=split),
        report=found.report,
    )
