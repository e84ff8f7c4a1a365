"""`snnprune analyze`: what other changes than pruning do to membranes, spikes and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snnprune.checkpoint.write import require_writable_as, write_like
from snnprune.errors import UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.calibrate import calibrate_target
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.target import Target
from snnprune.jobs.theory.levels import ChangeLevel
from snnprune.jobs.theory.measuring import ChangeMeter, Effect, change_weights, describe_effect
from snnprune.jobs.theory.options import AnalyzeOptions
from snnprune.measure.evaluation import Evaluation
from snnprune.report.frame import describe_evaluation, make_file_entry
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class AnalyzeResult:
    """What came of it."""

    dense: Evaluation | None
    effects: tuple[Effect, ...]
    uncounted: tuple[str, ...]
    """Changed layers behind which no neuron is known."""
    report: dict[str, Any]


def analyze_checkpoint(options: AnalyzeOptions, progress: Progress) -> AnalyzeResult:
    """Change a checkpoint level by level, each layer alone and all together.

    Raises:
        UsageError: a file is asked for of several levels.
        InputError: there is no network or no data, or the change does not fit them.
        OutputError: the file is in the way or cannot be written.
    """
    levels = options.make_levels()
    _require_room(options, levels)
    target = open_target(options)
    target.require_runnable()
    work = ChangeMeter(
        target,
        calibrate_target(target, progress),
        progress,
        eval_samples=options.eval_samples,
        time_axis=options.time_axis,
    )
    dense = work.evaluate_changed({}, None, "evaluating")
    effects = tuple(work.measure_effect(level) for level in levels)
    uncounted = work.list_uncounted() if levels[0].weights is not None else ()
    notes = _write_changed(options, target, levels[0]) if options.out is not None else ()
    outputs = [] if options.out is None else [make_file_entry(options.out)]
    return AnalyzeResult(
        dense=dense,
        effects=effects,
        uncounted=uncounted,
        report=make_target_report(
            target,
            f"analyze {options.change}",
            warnings=(*work.calibration.warnings, *notes),
            samples=work.calibration.samples,
            dense=describe_evaluation(dense),
            levels=[describe_effect(one) for one in effects],
            uncounted=list(uncounted),
            outputs=outputs,
        ),
    )


def _require_room(options: AnalyzeOptions, levels: tuple[ChangeLevel, ...]) -> None:
    if options.out is None:
        return
    if len(levels) != 1:
        raise UsageError("is of one level", field="-o", hint="give one alone")
    require_writable_as(options.checkpoint, options.out)
    require_free(options.out, force=options.force, inputs=options.list_inputs())


def _write_changed(options: AnalyzeOptions, target: Target, level: ChangeLevel) -> tuple[str, ...]:
    """Write the checkpoint with its changed weights: a drop-in."""
    assert options.out is not None
    source = target.checkpoint
    metadata = source.metadata | make_metadata(
        f"analyze {options.change}",
        model=target.spec,
        data=target.data_spec,
        level=level.name,
        source_sha256=source.sha256,
    )
    changed = change_weights(level, target)
    notes = write_like(source, options.out, {**source.tensors, **changed}, metadata)
    before = sum(int((weight == 0).sum()) for weight in target.find_weights().values())
    after = sum(int((weight == 0).sum()) for weight in changed.values())
    if after < before:
        notes = (*notes, f"{before - after:,} weights that were 0 are not any more")
    return notes
