"""`snnprune prune`: from a checkpoint to smaller ones that are drop-ins, with the evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from snnprune.errors import SnnpruneError
from snnprune.jobs.gating import told_outside
from snnprune.jobs.prune.filing import Filing
from snnprune.jobs.prune.measuring import Look
from snnprune.jobs.prune.options import Place, PruneOptions, completed
from snnprune.jobs.prune.pruned import Pruned, Pruning
from snnprune.jobs.prune.target_sparsity import Search
from snnprune.jobs.prune.work import Work
from snnprune.jobs.targets.reporting import report_on
from snnprune.runtime import Progress


def prune_checkpoint(options: PruneOptions, progress: Progress) -> Pruning:
    """Prune a checkpoint and write each pruned file with its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then, and the message names those
            that were written before.
    """
    options = completed(options)
    work = Work(options, progress)
    search, found = work.searched() if options.target is not None else (None, None)
    before = work.measure_before()
    files: list[Pruned] = []
    for sparsity, place in found or work.goals:
        with _naming(files):
            files.append(_filed(work, sparsity, place, search, before))
    verdicts = {one.place.out.name: one.verdicts for one in files}
    warnings = told_outside("prune", verdicts, options.junit)
    report = files[0].report if len(files) == 1 else _report_on_all(work, files)
    report = {**report, "warnings": [*report["warnings"], *warnings]}
    return Pruning(
        files=tuple(files),
        choice=work.choice,
        allocation=work.allocation,
        search=search,
        report=report,
    )


@contextlib.contextmanager
def _naming(files: list[Pruned]) -> Iterator[None]:
    """An error in the block tells which files are there."""
    try:
        yield
    except SnnpruneError as error:
        if files:
            names = ", ".join(one.place.out.name for one in files)
            error.message += f" (written before: {names})"
        raise


def _filed(
    work: Work, sparsity: float, place: Place, search: Search | None, before: Look | None
) -> Pruned:
    made = work.made_for(sparsity)
    filing = Filing(
        work=work, sparsity=sparsity, place=place, made=made, search=search, before=before
    )
    return filing.filed()


def _report_on_all(work: Work, files: list[Pruned]) -> dict[str, Any]:
    """One report with those of all files in it."""
    known = work.subject.checkpoint.notes
    warnings = dict.fromkeys(
        text for one in files for text in one.report["warnings"] if text not in known
    )
    report = report_on(
        work.subject,
        "prune",
        warnings=tuple(warnings),
        files=[one.report for one in files],
        cost=work.cost.report(work.subject.device),
    )
    errors = [one.error.as_dict() for one in files if one.error is not None]
    return {**report, "ok": False, "error": errors[0]} if errors else report
