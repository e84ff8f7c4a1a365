"""`score` and `prune`."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import ReadoutFlag, ScoringFlags, ShowFlags, SubjectFlags
from snnprune.cli.spreading import spread


@spread
def score(
    scoring: ScoringFlags,
    subject: SubjectFlags,
    show: ShowFlags,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the scores go.")
    ] = None,
) -> None:
    """Score every weight; larger means keep."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import excluded_lines, fallback_lines, layer_table
    from snnprune.jobs.score import score_checkpoint

    screen = Screen(show)
    found = score_checkpoint(
        subject.options(scoring.samples, strict=scoring.strict),
        criterion=scoring.criterion,
        calibration_file=scoring.calibration,
        out=out,
        force=scoring.force,
        progress=screen.progress(),
    )
    lines = [f"criterion {found.scores.criterion} ({found.why})", *fallback_lines(found.rows)]
    lines += [*excluded_lines(found.report), *([f"wrote {out}"] if out else [])]
    screen.result(layer_table(found.rows, screen.width, criteria=True), *lines, report=found.report)


@spread
def prune(
    scoring: ScoringFlags,
    subject: SubjectFlags,
    show: ShowFlags,
    sparsity: Annotated[
        float, typer.Option(metavar="S", help="Share of the weights to prune, in [0, 1).")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The pruned file: .safetensors, or as the input."
        ),
    ],
    allocation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="global, local, pools, pools-alike or pools-dense; see docs/criteria.",
        ),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="bn or none; bn by default where there is BatchNorm and data."
        ),
    ] = None,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Do not measure accuracy before and after.")
    ] = False,
    eval_samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Test images for that; all by default."),
    ] = None,
    readout: ReadoutFlag = "auto",
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for report.json.")
    ] = None,
) -> None:
    """Prune a checkpoint; the result has the same keys, shapes and types."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import (
        accuracy_line,
        excluded_lines,
        fallback_lines,
        layer_table,
        sparsity_line,
    )
    from snnprune.jobs.prune import PruneOptions, prune_checkpoint

    screen = Screen(show)
    options = PruneOptions(
        subject=subject.options(scoring.samples, readout=readout, strict=scoring.strict),
        sparsity=sparsity,
        out=out,
        criterion=scoring.criterion,
        allocation=allocation,
        repair=repair,
        calibration=scoring.calibration,
        report_folder=report,
        evaluate=not no_eval,
        eval_samples=eval_samples,
        force=scoring.force,
    )
    found = prune_checkpoint(options, screen.progress())
    lines = [
        sparsity_line(found.totals),
        f"criterion {found.choice.name} ({found.choice.why}), allocation {found.allocation}, "
        f"repair {found.repair}",
        *fallback_lines(found.rows),
        *excluded_lines(found.report),
    ]
    lines += [accuracy_line(found.after, found.before)] if found.after else []
    lines.append(f"wrote {out}, {options.mask_file.name} and {options.report_file.name}")
    screen.result(layer_table(found.rows, screen.width, criteria=True), *lines, report=found.report)
