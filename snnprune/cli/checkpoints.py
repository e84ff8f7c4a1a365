"""`inspect`, `calibrate` and `eval`: commands that look at a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.comparing import SplitFlag, require_split
from snnprune.cli.flags import (
    HOLD_OUT,
    ReadoutFlag,
    ReportFlag,
    ReportFlags,
    ShowFlags,
    StrictFlag,
)
from snnprune.cli.gate_flags import EnergyFlags
from snnprune.cli.options import expand_options
from snnprune.jobs.subjects.options import MeasuredOptions, SubjectOptions


@expand_options
def inspect(subject: SubjectOptions, show: ShowFlags) -> None:
    """Show what is in a checkpoint. Runs no code of the file."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import (
        excluded_lines,
        layer_table,
        link_table,
        neuron_line,
        neuron_table,
        sparsity_line,
        unused_lines,
    )
    from snnprune.jobs.inspect import inspect_checkpoint

    screen = Screen(show)
    found = inspect_checkpoint(subject)
    lines = [
        f"{found.checkpoint.container}, {len(found.checkpoint.tensors):,} tensors, "
        f"{len(found.skipped):,} of them not prunable",
        sparsity_line(found.totals),
        *excluded_lines(found.report),
        *(f"not prunable: {key}, made by {how}" for key, how in found.made.items()),
        *unused_lines(found.report),
    ]
    tables = [layer_table(found.rows, screen.width)]
    if found.unlinked is None:
        tables.append(link_table(found.rows, screen.width))
        tables.append(neuron_table(found.report["neurons"], screen.width))
        lines.append(neuron_line(found.report["neurons"]))
    else:
        lines.append(f"links not known: {found.unlinked}")
    screen.result(*tables, *lines, report=found.report)


@expand_options
def calibrate(
    subject: SubjectOptions,
    show: ShowFlags,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the statistics go.", readable=False
        ),
    ],
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to look at.")
    ] = 1024,
    strict: StrictFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    report: ReportFlag = None,
) -> None:
    """Take firing rates and membrane statistics for later runs."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import excluded_lines, layer_table
    from snnprune.jobs.calibrate import calibrate_checkpoint

    screen = Screen(show, report=report, force=force)
    found = calibrate_checkpoint(
        replace(subject, samples=samples, strict=strict, hold_out=HOLD_OUT),
        out,
        force=force,
        progress=screen.progress(),
    )
    line = f"wrote {out} ({found.calibration.samples:,} images, T = {found.calibration.time_steps})"
    lines = [*excluded_lines(found.report), line]
    screen.result(layer_table(found.rows, screen.width), *lines, report=found.report)


@expand_options
def evaluate(
    subject: MeasuredOptions,
    show: ShowFlags,
    energy: EnergyFlags,
    page: ReportFlags,
    split: SplitFlag = None,
    readout: ReadoutFlag = "auto",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Measure accuracy, loss, firing rates, sparsity, synaptic operations and energy."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import accuracy_line, excluded_lines, firing_table, sparsity_line
    from snnprune.cli.work_tables import work_lines, work_table
    from snnprune.jobs.evaluate import evaluate_checkpoint

    require_split(split)
    screen = Screen(show, report=page.report, force=page.force)
    found = evaluate_checkpoint(
        replace(subject, readout=readout),
        split=split,
        limit=samples,
        energy=energy.energy(),
        progress=screen.progress(),
    )
    screen.result(
        firing_table(found.evaluation),
        work_table(found, screen.width),
        sparsity_line(found.totals),
        *excluded_lines(found.report),
        *work_lines(found),
        accuracy_line(found.evaluation),
        report=found.report,
    )
