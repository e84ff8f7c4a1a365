"""`snnprune calibrate`: statistics for later runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnprune.calibration import (
    MIN_SAMPLES,
    Calibration,
    calibrate,
    read_calibration,
    write_calibration,
)
from snnprune.errors import InputError
from snnprune.files import require_free
from snnprune.jobs.layers import LayerRow, as_dicts, layer_rows
from snnprune.jobs.opening import open_subject
from snnprune.jobs.subject import Subject, SubjectOptions
from snnprune.progress import Progress
from snnprune.provenance import described
from snnprune.report import file_entry, report_on


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What calibration found out, and its report."""

    rows: tuple[LayerRow, ...]
    calibration: Calibration
    report: dict[str, Any]


def calibrate_checkpoint(
    options: SubjectOptions, out: Path, *, force: bool, progress: Progress
) -> Calibrated:
    """Calibrate a checkpoint and write the statistics to `out`."""
    require_free(out, force=force, inputs=options.inputs)
    subject = open_subject(options)
    calibration = calibrated(subject, progress)
    metadata = described("calibrate", model=subject.spec, data=subject.data_spec)
    write_calibration(out, calibration, metadata)
    rows = layer_rows(subject.weights, network=subject.network, calibration=calibration)
    return Calibrated(
        rows=rows,
        calibration=calibration,
        report=report_on(
            subject,
            "calibrate",
            warnings=calibration.warnings,
            samples=calibration.samples,
            time_steps=calibration.time_steps,
            layers=as_dicts(rows),
            outputs=[file_entry(out)],
        ),
    )


def calibrated(subject: Subject, progress: Progress) -> Calibration:
    """The statistics of the subject's network on its training images."""
    network = subject.require_runnable()
    batches = progress.track(
        subject.calibration_batches(), label="calibrating", total=subject.calibration_steps()
    )
    data, options = subject.data_spec, subject.options
    source = {
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data": data.name if data else "",
        "seed": str(options.seed),
        "model": _model_of(subject),
    }
    found = calibrate(network, batches, run=subject.run, source=source)
    if found.samples >= MIN_SAMPLES:
        return found
    few = f"calibrated on {found.samples} images; at least {MIN_SAMPLES} are advised"
    return replace(found, warnings=(*found.warnings, few))


def _model_of(subject: Subject) -> str:
    """The model and all its arguments: thresholds and decay are no tensors of the checkpoint."""
    spec = subject.spec
    return json.dumps([spec.name, dict(spec.args)], sort_keys=True) if spec else ""


def read_calibration_for(subject: Subject, path: Path) -> Calibration:
    """A calibration file, checked to be of this checkpoint.

    Raises:
        InputError: it was taken on another checkpoint, or is damaged.
    """
    calibration = read_calibration(path)
    same = {"checkpoint_sha256": subject.checkpoint.sha256, "model": _model_of(subject)}
    if any(calibration.source.get(name) != value for name, value in same.items()):
        raise InputError(
            f"was not taken on {subject.checkpoint.path.name} and its model as they are now",
            file=path,
            field="--calibration",
            hint="run snnprune calibrate again",
        )
    return calibration
