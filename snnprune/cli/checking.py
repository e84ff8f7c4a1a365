"""`check`: a checkpoint against its limits."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.comparing import SplitFlag, require_split
from snnprune.cli.flags import ReadoutFlag, ReportFlags, ShowFlags
from snnprune.cli.gate_flags import PANEL, EnergyFlags, GateFlags
from snnprune.cli.options import expand_options
from snnprune.gates import GATES
from snnprune.jobs.subjects.options import MeasuredOptions
from snnprune.readable import require_readable

DROP = GATES["max-accuracy-drop"]


@expand_options
def check(
    subject: MeasuredOptions,
    show: ShowFlags,
    gates: GateFlags,
    page: ReportFlags,
    energy: EnergyFlags,
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(DROP.flag, metavar="POINTS", help=DROP.help, rich_help_panel=PANEL),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The checkpoint before pruning, for drop and agreement.",
            rich_help_panel=PANEL,
            readable=False,
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            metavar="HASH|FILE",
            help="What CKPT must be to the bit: its hash, or a list such as SHA256SUMS.",
        ),
    ] = None,
    split: SplitFlag = None,
    readout: ReadoutFlag = "auto",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Hold a checkpoint against limits; exit code 4 if one is not kept."""
    require_split(split)
    limits = gates.limits(max_accuracy_drop)
    if baseline is not None:
        require_readable(baseline)
    from snnprune.cli.console import Screen
    from snnprune.cli.gate_tables import gate_lines, gate_table
    from snnprune.cli.tables import excluded_lines
    from snnprune.jobs.check import CheckOptions, check_checkpoint

    screen = Screen(show, report=page.report, force=page.force, junit=gates.junit)
    options = CheckOptions(
        subject=replace(subject, readout=readout),
        limits=limits,
        baseline=baseline,
        sha256=sha256,
        split=split,
        samples=samples,
        energy=energy.energy(),
        junit=gates.junit,
        force=page.force,
    )
    found = check_checkpoint(options, screen.progress())
    same = [] if sha256 is None else ["its SHA-256 is the one that was given"]
    tables = [gate_table(found.verdicts, screen.width)] if found.verdicts else []
    lines = [*same, *excluded_lines(found.report), *gate_lines(found.verdicts)]
    screen.result(*tables, *lines, report=found.report)
    if found.error is not None:
        raise found.error
