"""`score` and `prune`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import (
    HOLD_OUT,
    EnergyFlags,
    GateFlags,
    GoalFlags,
    ReadoutFlag,
    ReportFlag,
    ScoringFlags,
    ShowFlags,
    TrustFlag,
)
from snnprune.cli.options import expand_options
from snnprune.jobs.targets.options import MeasuredOptions
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.repair import REPAIRS


@expand_options
def score(
    scoring: ScoringFlags,
    target: MeasuredOptions,
    show: ShowFlags,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where the scores go.", readable=False),
    ] = None,
    report: ReportFlag = None,
) -> None:
    """Score every weight; larger means keep."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import format_excluded_lines, format_fallback_lines, make_layer_table
    from snnprune.jobs.score import score_checkpoint

    screen = Screen(show, report=report, force=scoring.force)
    found = score_checkpoint(
        replace(target, samples=scoring.samples, strict=scoring.strict, hold_out=HOLD_OUT),
        criterion=scoring.criterion,
        calibration_file=scoring.calibration,
        out=out,
        force=scoring.force,
        progress=screen.progress(),
    )
    lines = [
        f"criterion {found.scores.criterion} ({found.why})",
        *format_fallback_lines(found.rows),
    ]
    lines += [*format_excluded_lines(found.report), *([f"wrote {out}"] if out else [])]
    screen.result(
        make_layer_table(found.rows, screen.width, criteria=True), *lines, report=found.report
    )


@expand_options
def prune(
    scoring: ScoringFlags,
    target: MeasuredOptions,
    show: ShowFlags,
    goal: GoalFlags,
    gates: GateFlags,
    energy: EnergyFlags,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The pruned file: .safetensors, or as the input.",
            readable=False,
        ),
    ],
    allocation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{', '.join(ALLOCATIONS.rows)}; see docs/criteria."),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"none, {', '.join(REPAIRS.rows)}, or several as obs+tune."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rank and repair again on the way; 1 by default."),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="unstructured, N:M along the inputs (as 2:4), or channels."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML with a section prune; flags come before it.", readable=False
        ),
    ] = None,
    trust_recipe: TrustFlag = False,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Do not measure accuracy before and after.")
    ] = False,
    eval_samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Test and validation images; all by default."),
    ] = None,
    readout: ReadoutFlag = "auto",
    report: ReportFlag = None,
) -> None:
    """Prune a checkpoint; the result has the same keys, shapes and types."""
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import format_prune_lines, make_prune_tables
    from snnprune.jobs.prune.options import PruneOptions
    from snnprune.jobs.prune.prune import prune_checkpoint

    screen = Screen(show, report=report, force=scoring.force, junit=gates.junit)
    options = PruneOptions(
        target=replace(
            target,
            samples=scoring.samples,
            readout=readout,
            strict=scoring.strict,
            hold_out=HOLD_OUT,
        ),
        sparsities=goal.sparsities,
        accuracy_target=goal.accuracy_target,
        out=out,
        criterion=scoring.criterion,
        allocation=allocation,
        repair=repair,
        steps=steps,
        structure=structure,
        recipe=recipe,
        trust_recipe=trust_recipe,
        calibration=scoring.calibration,
        report_folder=report,
        limits=gates.limits(goal.gated_drop),
        energy=energy.energy(),
        junit=gates.junit,
        evaluate=not no_eval,
        eval_samples=eval_samples,
        force=scoring.force,
    )
    found = prune_checkpoint(options, screen.progress())
    screen.result(
        *make_prune_tables(found, screen.width), *format_prune_lines(found), report=found.report
    )
    if found.error is not None:
        raise found.error
