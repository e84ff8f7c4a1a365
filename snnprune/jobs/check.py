"""`snnprune check`: whether a checkpoint keeps its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.hashes import require_sha256
from snnprune.checkpoint.read import files_of
from snnprune.errors import SnnpruneError, UsageError
from snnprune.files.writing import require_free
from snnprune.graph.network import Network
from snnprune.jobs.gating import (
    BY_COMPARING,
    BY_COUNTING,
    BY_RUNNING,
    Ran,
    gated,
    measured,
    need,
    told_outside,
)
from snnprune.jobs.targets.layers import LayerRow, as_dicts, layer_rows, totals
from snnprune.jobs.targets.opening import open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.other import read_other
from snnprune.jobs.targets.reporting import report_on
from snnprune.jobs.targets.target import Subject
from snnprune.measure.agreement import Agreement, about_agreement
from snnprune.measure.agreement_pass import agreements
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.measure.workload import Energy, Workload
from snnprune.report.frame import about_evaluation, about_workload, doubts_on, file_entry
from snnprune.report.gates.gate import Limit, Verdict
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What the command line asks for."""

    subject: SubjectOptions
    limits: tuple[Limit, ...]
    baseline: Path | None = None
    sha256: str | None = None
    """What the checkpoint's has to be, or a list that has it."""
    split: str | None = None
    """None: see `Subject.asked_for`."""
    samples: int | None = None
    energy: Energy
    junit: Path | None = None
    force: bool = False
    """Whether a JUnit file that is there is replaced."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of it."""

    verdicts: tuple[Verdict, ...]
    rows: tuple[LayerRow, ...]
    totals: dict[str, int]
    error: SnnpruneError | None
    """Of gates that are not met."""
    report: dict[str, Any]


def check_checkpoint(options: CheckOptions, progress: Progress) -> Checked:
    """Measure what the gates are about, and hold it against them all.

    Raises:
        UsageError: there is no gate, or one that compares has nothing to compare with.
        InputError: a checkpoint, network or data set cannot be used, or it is not that of the hash.
        OutputError: the JUnit file cannot be written.
    """
    _require_sense(options)
    if options.sha256 is not None:
        require_sha256(options.subject.checkpoint, options.sha256)
    subject = open_subject(options.subject)
    second = None if options.baseline is None else read_other(subject, options.baseline)
    rows = layer_rows(subject.find_weights(), network=subject.network)
    ran = _Running(options, subject, second, progress).ran()
    found = measured(rows, files_of(options.subject.checkpoint), ran, options.energy)
    result = gated(options.limits, found, options.subject.checkpoint)
    name = options.subject.checkpoint.name
    warnings = told_outside("check", {name: result.verdicts}, options.junit)
    counted = totals(rows, subject.checkpoint.tensors, subject.network)
    report = _report(options, subject, second, ran, warnings, totals=counted, layers=as_dicts(rows))
    return Checked(
        verdicts=result.verdicts,
        rows=rows,
        totals=counted,
        error=result.error,
        report=result.entered(report),
    )


def _require_sense(options: CheckOptions) -> None:
    if not options.limits and options.sha256 is None:
        raise UsageError("no gate is given", hint="give one, such as --min-sparsity 0.9")
    for limit in options.limits:
        if options.baseline is None and set(limit.gate.needs) & set(BY_COMPARING):
            raise UsageError(
                "compares with a baseline",
                field=limit.gate.flag,
                hint="give --baseline FILE, the checkpoint before pruning",
            )
    if options.junit is not None:
        inputs = [*options.subject.list_inputs(), *([options.baseline] if options.baseline else [])]
        require_free(options.junit, force=options.force, inputs=inputs)


@dataclass(frozen=True)
class _Running:
    """Runs the network as far as the gates need it."""

    options: CheckOptions
    subject: Subject
    second: Checkpoint | None
    progress: Progress

    def ran(self) -> Ran:
        limits, network = self.options.limits, self.subject.runnable
        if not need(limits, BY_RUNNING):
            return Ran()
        if network is None:
            return Ran(missing=self.subject.missing)
        workload = Workload() if need(limits, BY_COUNTING) else None
        compared = self._compared(network) if need(limits, BY_COMPARING) else None
        return Ran(
            evaluation=self._evaluated(network, workload),
            before=compared,
            workload=workload,
            agreement=compared,
        )

    def _evaluated(self, network: Network, workload: Workload | None) -> Evaluation:
        subject, split, limit = self.subject, self.choose_split(), self.options.samples
        batches = subject.batches(split, limit).track(self.progress, "evaluating")
        return evaluate(
            network,
            batches,
            workload=workload,
            images=split,
        )

    def choose_split(self) -> str:
        """Which images it is run on."""
        return self.options.split or self.subject.choose_split()

    def _compared(self, network: Network) -> Agreement:
        assert self.second is not None
        subject, split, limit = self.subject, self.choose_split(), self.options.samples
        batches = subject.batches(split, limit).track(self.progress, "comparing")
        before, now = self.second.tensors, subject.checkpoint.tensors
        return agreements(network, before, [now], batches)[0]


def _report(
    options: CheckOptions,
    subject: Subject,
    second: Checkpoint | None,
    ran: Ran,
    warnings: tuple[str, ...],
    **counted: Any,
) -> dict[str, Any]:
    samples = ran.evaluation.samples if ran.evaluation else 0
    report = report_on(
        subject,
        "check",
        warnings=(
            *(second.notes if second else ()),
            *warnings,
            *doubts_on(about_evaluation(ran.evaluation)),
        ),
        split=ran.evaluation.images if ran.evaluation else None,
        size_bytes=sum(path.stat().st_size for path in files_of(options.subject.checkpoint)),
        evaluation=about_evaluation(ran.evaluation),
        workload=ran.workload and about_workload(ran.workload, samples, options.energy),
        agreement=about_agreement(ran.agreement),
        **counted,
    )
    inputs = [file_entry(second.path, second.sha256)] if second else []
    return {**report, "inputs": [*report["inputs"], *inputs]}
