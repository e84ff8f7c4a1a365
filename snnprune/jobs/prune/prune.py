"""`snnprune prune`: from a checkpoint to smaller ones that are drop-ins, with the evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from snnprune.errors import SnnpruneError
from snnprune.jobs.gating import publish_verdicts
from snnprune.jobs.prune.completing import complete_options
from snnprune.jobs.prune.filing import PrunedFile, PruneOutcome, PruneWriter
from snnprune.jobs.prune.measuring import TestResult
from snnprune.jobs.prune.options import OutputPaths, PruneOptions
from snnprune.jobs.prune.target_sparsity import Search
from snnprune.jobs.prune.work import PruneJob
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.runtime import Progress


def prune_checkpoint(options: PruneOptions, progress: Progress) -> PruneOutcome:
    """Prune a checkpoint and write each pruned file with its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then, and the message names those
            that were written before.
    """
    options = complete_options(options)
    work = PruneJob(options, progress)
    work.calibrate()
    work.score()
    search, found = work.search_goal() if options.accuracy_target is not None else (None, None)
    before = work.measure_before()
    files: list[PrunedFile] = []
    for sparsity, place in found or work.goals:
        with _name_files_in_errors(files):
            files.append(_write_pruned(work, sparsity, place, search, before))
    verdicts = {one.place.out.name: one.verdicts for one in files}
    warnings = publish_verdicts("prune", verdicts, options.junit)
    report = files[0].report if len(files) == 1 else _make_joint_report(work, files)
    report = {**report, "warnings": [*report["warnings"], *warnings]}
    return PruneOutcome(
        files=tuple(files),
        choice=work.choice,
        allocation=work.allocation,
        search=search,
        report=report,
    )


@contextlib.contextmanager
def _name_files_in_errors(files: list[PrunedFile]) -> Iterator[None]:
    """An error in the block tells which files are there."""
    try:
        yield
    except SnnpruneError as error:
        if files:
            names = ", ".join(one.place.out.name for one in files)
            error.message += f" (written before: {names})"
        raise


def _write_pruned(
    work: PruneJob,
    sparsity: float,
    place: OutputPaths,
    search: Search | None,
    before: TestResult | None,
) -> PrunedFile:
    made = work.prune_to(sparsity)
    filing = PruneWriter(
        work=work, sparsity=sparsity, place=place, made=made, search=search, before=before
    )
    return filing.write_pruned()


def _make_joint_report(work: PruneJob, files: list[PrunedFile]) -> dict[str, Any]:
    """One report with those of all files in it."""
    known = work.target.checkpoint.notes
    warnings = dict.fromkeys(
        text for one in files for text in one.report["warnings"] if text not in known
    )
    report = make_target_report(
        work.target,
        "prune",
        warnings=tuple(warnings),
        files=[one.report for one in files],
        cost=work.cost.report(work.target.device),
    )
    errors = [one.error.as_dict() for one in files if one.error is not None]
    return {**report, "ok": False, "error": errors[0]} if errors else report
