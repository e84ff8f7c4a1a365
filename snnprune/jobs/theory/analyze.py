"""`snnprune analyze`: what other changes than pruning do to membranes, spikes and answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnprune.checkpoint.write import require_writable_as, write_like
from snnprune.errors import UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.targets.opening import open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.reporting import report_on
from snnprune.jobs.targets.target import Subject
from snnprune.jobs.theory.levels import Level
from snnprune.jobs.theory.measuring import Effect, Measuring, about_effect, changed_by
from snnprune.measure.evaluation import Evaluation
from snnprune.report.frame import about_evaluation, file_entry
from snnprune.report.provenance import described
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions:
    """What the command line asks for."""

    subject: SubjectOptions
    kind: str
    levels: tuple[Level, ...]
    time_axis: int | None = None
    """Of a batch, where somebody says."""
    eval_samples: int | None = None
    out: Path | None = None
    """A checkpoint with the changed weights; of one level."""
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Analyzed:
    """What came of it."""

    dense: Evaluation | None
    effects: tuple[Effect, ...]
    uncounted: tuple[str, ...]
    """Changed layers behind which no neuron is known."""
    report: dict[str, Any]


def analyze_checkpoint(options: AnalyzeOptions, progress: Progress) -> Analyzed:
    """Change a checkpoint level by level, each layer alone and all together.

    Raises:
        UsageError: a file is asked for of several levels.
        InputError: there is no network or no data, or the change does not fit them.
        OutputError: the file is in the way or cannot be written.
    """
    _require_room(options)
    subject = open_subject(options.subject)
    subject.require_runnable()
    work = Measuring(
        subject,
        calibrated(subject, progress),
        progress,
        eval_samples=options.eval_samples,
        time_axis=options.time_axis,
    )
    dense = work.evaluated({}, None, "evaluating")
    effects = tuple(work.effect(level) for level in options.levels)
    uncounted = work.list_uncounted() if options.levels[0].weights is not None else ()
    notes = _written(options, subject) if options.out is not None else ()
    outputs = [] if options.out is None else [file_entry(options.out)]
    return Analyzed(
        dense=dense,
        effects=effects,
        uncounted=uncounted,
        report=report_on(
            subject,
            f"analyze {options.kind}",
            warnings=(*work.calibration.warnings, *notes),
            samples=work.calibration.samples,
            dense=about_evaluation(dense),
            levels=[about_effect(one) for one in effects],
            uncounted=list(uncounted),
            outputs=outputs,
        ),
    )


def _require_room(options: AnalyzeOptions) -> None:
    if options.out is None:
        return
    if len(options.levels) != 1:
        raise UsageError("is of one level", field="-o", hint="give one alone")
    require_writable_as(options.subject.checkpoint, options.out)
    require_free(options.out, force=options.force, inputs=options.subject.list_inputs())


def _written(options: AnalyzeOptions, subject: Subject) -> tuple[str, ...]:
    """Write the checkpoint with its changed weights: a drop-in."""
    assert options.out is not None
    source, (level,) = subject.checkpoint, options.levels
    metadata = source.metadata | described(
        f"analyze {options.kind}",
        model=subject.spec,
        data=subject.data_spec,
        level=level.name,
        source_sha256=source.sha256,
    )
    changed = changed_by(level, subject)
    notes = write_like(source, options.out, {**source.tensors, **changed}, metadata)
    before = sum(int((weight == 0).sum()) for weight in subject.find_weights().values())
    after = sum(int((weight == 0).sum()) for weight in changed.values())
    if after < before:
        notes = (*notes, f"{before - after:,} weights that were 0 are not any more")
    return notes
