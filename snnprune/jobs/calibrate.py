"""`snnprune calibrate`: statistics for later runs."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from snnprune.distributed.ranks import ALONE, Ranks, join_ranks
from snnprune.errors import InputError
from snnprune.files.writing import require_free
from snnprune.jobs.options import CalibrateOptions
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    make_layer_rows,
    make_target_report,
)
from snnprune.jobs.targets.target import Target
from snnprune.measure.calibrate import MIN_SAMPLES, calibrate
from snnprune.measure.calibration import Calibration, read_calibration, write_calibration
from snnprune.plugins.names import WHOLE
from snnprune.pruning.criteria import Criterion
from snnprune.pruning.effects import describe_membranes
from snnprune.report import make_file_entry
from snnprune.runtime import Progress

AnyOptions = TypeVar("AnyOptions", bound=TargetOptions)


@dataclass(frozen=True, kw_only=True)
class CalibrateResult:
    """What calibration found out, and its report."""

    rows: tuple[LayerRow, ...]
    calibration: Calibration
    report: dict[str, Any]


def calibrate_checkpoint(options: CalibrateOptions, progress: Progress) -> CalibrateResult:
    """Calibrate a checkpoint and write the statistics; several processes share the work.

    Raises:
        SnnpruneError: see `open_target` and `calibrate_target`; or `--out` cannot be written.
    """
    require_free(options.out, force=options.force, inputs=options.list_inputs())
    with join_ranks(options.device) as ranks:
        with ranks.one_before_others(options.download):
            target = open_target(options)
        calibration = calibrate_target(target, progress, ranks)
        rows = make_layer_rows(
            target.find_weights(), network=target.network, calibration=calibration
        )
        report = ranks.by_first(lambda: _write_statistics(options.out, target, calibration, rows))
    return CalibrateResult(rows=rows, calibration=calibration, report=report)


def _write_statistics(
    out: Path, target: Target, calibration: Calibration, rows: tuple[LayerRow, ...]
) -> dict[str, Any]:
    """Write the statistics; the report."""
    metadata = make_metadata("calibrate", model=target.spec, data=target.data_spec)
    write_calibration(out, calibration, metadata)
    return make_target_report(
        target,
        "calibrate",
        warnings=calibration.warnings,
        samples=calibration.samples,
        time_steps=calibration.time_steps,
        layers=as_dicts(rows),
        edges=calibration.histogram_edges.tolist(),
        membranes={name: asdict(found) for name, found in describe_membranes(calibration).items()},
        outputs=[make_file_entry(out)],
    )


def calibrate_target(target: Target, progress: Progress, ranks: Ranks = ALONE) -> Calibration:
    """The statistics of the target's network on its training images.

    Raises:
        InputError: the network or the data is missing; or, with `--strict`, a neuron cannot be
            explained.
    """
    network = target.require_runnable()
    weights = target.find_weights()  # refused before the pass where they can be
    batches = target.calibration_batches().track(progress, "calibrating")
    data, options = target.data_spec, target.options
    source = {
        "data": data.name if data else "",
        "seed": str(options.seed),
        **_describe_conditions(target),
    }
    found = calibrate(network, batches, source=source, ranks=ranks)
    require_explained(found, target, weights)
    if found.samples >= MIN_SAMPLES:
        return found
    few = f"calibrated on {found.samples} {target.noun}; at least {MIN_SAMPLES} are advised"
    return replace(found, warnings=(*found.warnings, few))


def require_explained(
    calibration: Calibration, target: Target, weights: Collection[str], file: Path | None = None
) -> None:
    """With `--strict`, refuse statistics in which a neuron that one of `weights` drives is missing.

    Raises:
        InputError: one is; at most five layers are named.
    """
    refused = {
        key: seen.refused
        for key, seen in calibration.layers.items()
        if seen.refused is not None and key in weights
    }
    if not target.options.strict or not refused:
        return
    named = "; ".join(f"{key}: {reason}" for key, reason in list(refused.items())[:5])
    raise InputError(
        f"{len(refused)} of {len(weights)} layers left without statistics: {named}",
        file=file or target.checkpoint.path,
        field="--strict",
        hint="--exclude leaves a layer alone; without --strict it is scored by magnitude",
    )


def _describe_conditions(target: Target) -> dict[str, str]:
    """What statistics depend on beside the data; a calibration file of another is refused."""
    options = target.options
    return {
        "checkpoint_sha256": target.checkpoint.sha256,
        "state_dict": target.checkpoint.entry or "",
        "model": _format_model(target),
        "forward": "" if options.forward in (None, WHOLE) else options.forward,
        "links": json.dumps(dict(options.links), sort_keys=True) if options.links else "",
    }


def _format_model(target: Target) -> str:
    """The model and all its arguments: thresholds and decay are no tensors of the checkpoint."""
    spec = target.spec
    return json.dumps([spec.name, dict(spec.args)], sort_keys=True) if spec else ""


def read_or_calibrate(
    target: Target, criterion: Criterion, calibration_file: Path | None, progress: Progress
) -> Calibration | None:
    """The calibration file's statistics, or fresh ones where the criterion needs them."""
    if calibration_file is not None:
        return read_calibration_for(target, calibration_file)
    if criterion.needs == "weight":
        return None
    return calibrate_target(target, progress)


def fill_data_from_statistics(options: AnyOptions, path: Path | None) -> AnyOptions:
    """`options` that know on which set the statistics of a file were taken."""
    name = read_calibration(path).source.get("data") if path is not None else None
    return replace(options, learnt_from=(name,)) if name else options


def read_calibration_for(target: Target, path: Path) -> Calibration:
    """A calibration file, checked to be of this checkpoint.

    Raises:
        InputError: it was taken on another checkpoint, or is damaged; or, with `--strict`, a
            neuron could not be explained when it was taken.
    """
    calibration = read_calibration(path)
    same = _describe_conditions(target)
    if any(calibration.source.get(name, "") != value for name, value in same.items()):
        raise InputError(
            f"was not taken on {target.checkpoint.path.name} and its model as they are now",
            file=path,
            field="--calibration",
            hint="run snnprune calibrate again, with the flags of this command",
        )
    require_explained(calibration, target, target.find_weights(), path)
    return calibration
