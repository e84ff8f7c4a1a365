"""`snnprune prune`: from a checkpoint to a smaller one that is a drop-in, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.allocation import ALLOCATIONS, load_allocation
from snnprune.calibration import Calibration
from snnprune.checkpoint import (
    read_back,
    require_writable_as,
    write_like,
    write_masks,
)
from snnprune.errors import UsageError
from snnprune.evaluation import Evaluation, evaluate
from snnprune.files import require_free, write_json
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.layers import LayerRow, as_dicts, layer_rows, parameter_count, totals
from snnprune.jobs.opening import open_subject
from snnprune.jobs.options import SubjectOptions
from snnprune.jobs.repairing import choose_repair, pruned_tensors
from snnprune.jobs.score import (
    Choice,
    choose_criterion,
    evidence,
    not_used,
    require_criterion,
    scored,
)
from snnprune.jobs.subject import Subject
from snnprune.jobs.unused import warnings_on
from snnprune.mask import Masks
from snnprune.progress import Progress
from snnprune.provenance import described
from snnprune.pruning import default_allocation, prune, require_sparsity
from snnprune.repair import REPAIRS
from snnprune.report import about_evaluation, file_entry, report_on
from snnprune.spelling import did_you_mean


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What the command line asks for; None takes the default that fits the subject."""

    subject: SubjectOptions
    sparsity: float
    out: Path
    criterion: str | None = None
    allocation: str | None = None
    repair: str | None = None
    calibration: Path | None = None
    report_folder: Path | None = None
    evaluate: bool = True
    eval_samples: int | None = None
    force: bool = False

    @property
    def mask_file(self) -> Path:
        """Where the masks go."""
        return self.out.with_name(f"{self._name}.mask.safetensors")

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        if self.report_folder is not None:
            return self.report_folder / "report.json"
        return self.out.with_name(f"{self._name}.report.json")

    @property
    def _name(self) -> str:
        """What the files beside the output begin with: two containers do not share them."""
        return self.out.stem if self.out.suffix == ".safetensors" else self.out.name


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What came of it."""

    rows: tuple[LayerRow, ...]
    """Counted in the file that was written."""
    totals: dict[str, int]
    choice: Choice
    allocation: str
    repair: str
    before: Evaluation | None
    after: Evaluation | None
    warnings: tuple[str, ...]
    report: dict[str, Any] = field(default_factory=dict)


def prune_checkpoint(options: PruneOptions, progress: Progress) -> Pruned:
    """Prune a checkpoint and write the pruned file, its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then.
    """
    _require_sense(options)
    subject = open_subject(options.subject)
    subject.prunable.require_one_by_one()
    calibrated = options.calibration is not None
    choice = choose_criterion(subject, options.criterion, calibrated=calibrated)
    repair = choose_repair(subject, options.repair)
    calibration = _calibration_for(subject, choice, options, progress)

    scores = scored(subject, choice, calibration)
    allocation = options.allocation or default_allocation(scores)
    cut = prune(
        subject.weights,
        scores,
        sparsity=options.sparsity,
        allocation=load_allocation(allocation),
    )
    before = _evaluated(subject, options, "evaluating before", progress)
    tensors = pruned_tensors(subject, cut, repair, progress)
    after = _evaluated(subject, options, "evaluating after", progress)

    written, notes = _write(options, subject, tensors, cut.masks, (choice.name, allocation, repair))
    rows = layer_rows(
        {key: written[key] for key in cut.masks},
        kept=cut.masks,
        network=subject.network,
        calibration=calibration,
        scores=scores,
    )
    pruned = Pruned(
        rows=rows,
        totals=totals(rows, parameter_count(written, subject.network)),
        choice=choice,
        allocation=allocation,
        repair=repair,
        before=before,
        after=after,
        warnings=(
            *(calibration.warnings if calibration else ()),
            *not_used(scores),
            *cut.warnings,
            *warnings_on(subject.prunable.unused),
            *notes,
        ),
    )
    found = replace(pruned, report=_report(options, subject, pruned))
    write_json(options.report_file, found.report)
    return found


def _require_sense(options: PruneOptions) -> None:
    """Everything that can be refused before the work begins."""
    require_sparsity(options.sparsity)
    require_criterion(options.criterion)
    if options.allocation is not None:
        ALLOCATIONS.require(options.allocation, field="--allocation")
    if options.repair is not None and options.repair not in REPAIRS:
        raise UsageError(
            f"unknown repair {options.repair!r}",
            field="--repair",
            hint=did_you_mean(options.repair, REPAIRS),
        )
    source = options.subject.checkpoint
    require_writable_as(source, options.out)
    sources = [*options.subject.inputs, *([options.calibration] if options.calibration else [])]
    for path in (options.out, options.mask_file, options.report_file):
        require_free(path, force=options.force, inputs=sources)


def _calibration_for(
    subject: Subject, choice: Choice, options: PruneOptions, progress: Progress
) -> Calibration | None:
    """Statistics, also for a criterion that needs none where the report can have them."""
    found = evidence(subject, choice.criterion, options.calibration, progress)
    if found is None and subject.runnable is not None:
        return calibrated(subject, progress)
    return found


def _evaluated(
    subject: Subject, options: PruneOptions, label: str, progress: Progress
) -> Evaluation | None:
    """Accuracy on the test images, where there are any."""
    data, limit = subject.data, options.eval_samples
    network = subject.runnable
    if not options.evaluate or network is None or data is None or data.test is None:
        return None
    batches = progress.track(
        subject.batches("test", limit), label=label, total=subject.steps("test", limit)
    )
    return evaluate(network, batches, run=subject.run, readout=subject.readout())


def _write(
    options: PruneOptions,
    subject: Subject,
    tensors: dict[str, Tensor],
    masks: Masks,
    how: tuple[str, str, str],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Write the pruned file and its masks; the tensors as they are read back, and notes."""
    criterion, allocation, repair = how
    metadata = subject.checkpoint.metadata | described(
        "prune",
        model=subject.spec,
        data=subject.data_spec,
        criterion=criterion,
        allocation=allocation,
        repair=repair,
        sparsity=options.sparsity,
        source_sha256=subject.checkpoint.sha256,
    )
    for stale in (options.mask_file, options.report_file):  # of a file that is about to go
        stale.unlink(missing_ok=True)
    source = subject.checkpoint
    notes = write_like(source, options.out, tensors, metadata)
    write_masks(options.mask_file, source.in_file(masks), metadata)
    return read_back(source, options.out), notes


def _report(options: PruneOptions, subject: Subject, pruned: Pruned) -> dict[str, Any]:
    return report_on(
        subject,
        "prune",
        warnings=pruned.warnings,
        criterion=pruned.choice.name,
        criterion_because=pruned.choice.why,
        allocation=pruned.allocation,
        repair=pruned.repair,
        sparsity_asked=options.sparsity,
        totals=pruned.totals,
        before=about_evaluation(pruned.before),
        after=about_evaluation(pruned.after),
        layers=as_dicts(pruned.rows),
        unused=list(subject.prunable.unused),
        outputs=[file_entry(options.out), file_entry(options.mask_file)],
    )
