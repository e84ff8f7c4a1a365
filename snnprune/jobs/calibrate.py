"""`snnprune calibrate`: statistics for later runs."""

from __future__ import annotations

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
from snnprune.report import about_subject, file_entry, report


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
    require_free(out, force=force, inputs=[options.checkpoint])
    subject = open_subject(options)
    calibration = calibrated(subject, progress)
    metadata = described("calibrate", model=subject.spec, data=subject.data_spec)
    write_calibration(out, calibration, metadata)
    rows = layer_rows(subject.weights, network=subject.network, calibration=calibration)
    return Calibrated(
        rows=rows,
        calibration=calibration,
        report=report(
            "calibrate",
            device=subject.device,
            seed=options.seed,
            inputs=[file_entry(options.checkpoint, subject.checkpoint.sha256)],
            warnings=calibration.warnings,
            **about_subject(subject),
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
    }
    found = calibrate(network, batches, source=source)
    if found.samples >= MIN_SAMPLES:
        return found
    few = f"calibrated on {found.samples} images; at least {MIN_SAMPLES} are advised"
    return replace(found, warnings=(*found.warnings, few))


def read_calibration_for(subject: Subject, path: Path) -> Calibration:
    """A calibration file, checked to be of this checkpoint.

    Raises:
        InputError: it was taken on another checkpoint, or is damaged.
    """
    calibration = read_calibration(path)
    if calibration.source.get("checkpoint_sha256") != subject.checkpoint.sha256:
        raise InputError(
            f"was not taken on {subject.checkpoint.path.name} as it is now",
            file=path,
            field="--calibration",
            hint="run snnprune calibrate again",
        )
    return calibration
