"""`snnprune theory crisis`: how likely spikes of a checkpoint are to flip, bound and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.errors import UsageError, layer_name
from snnprune.files.writing import require_free
from snnprune.jobs.calibrate import calibrate_target
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.reporting import make_target_report
from snnprune.jobs.targets.target import Target
from snnprune.jobs.theory.options import CrisisOptions
from snnprune.measure import Share
from snnprune.measure.calibration import Calibration
from snnprune.pruning.allocation import require_sparsity
from snnprune.report.plots.theory import FlipCourse, plot_accumulation, plot_predictions
from snnprune.runtime import Progress, make_generator
from snnprune.theory.changes import add_weight_noise, drop_smallest
from snnprune.theory.crisis import (
    AccumulatedFlips,
    CrisisEstimate,
    accumulate_flips,
    find_first_empty,
    measure_crises,
)
from snnprune.theory.shifts import MembraneShift, SpreadCollector, measure_shifts


@dataclass(frozen=True, kw_only=True)
class CrisisRow:
    """A `CrisisEstimate` for a report, by channel, with what follows from it."""

    layer: str
    neuron: str
    error: Sequence[float]
    radius: Sequence[float]
    density_gaussian: Sequence[float]
    density_counted: Sequence[float]
    estimate: Sequence[Share]
    estimate_counted: Sequence[Share]
    near: Sequence[Share]
    bound: Sequence[Share]
    correlation: float | None
    followed: bool
    moved: Mapping[str, Sequence[float]]


def make_crisis_row(one: CrisisEstimate) -> CrisisRow:
    """Of one layer and one neuron behind it."""
    return CrisisRow(
        layer=one.layer,
        neuron=one.neuron,
        error=one.error.tolist(),
        radius=one.radius.tolist(),
        density_gaussian=one.densities.gaussian.tolist(),
        density_counted=one.densities.counted.tolist(),
        estimate=one.compute_estimate().tolist(),
        estimate_counted=one.compute_counted().tolist(),
        near=one.near.tolist(),
        bound=one.bound.tolist(),
        correlation=one.compute_correlation(),
        followed=one.followed,
        moved=describe_shift(one.moved),
    )


def describe_shift(one: MembraneShift) -> dict[str, list[float]]:
    """What membranes did, for a report."""
    values = {name: value.tolist() for name, value in vars(one).items() if name != "reach"}
    return values | {"furthest": one.compute_furthest().tolist()}


def describe_accumulation(one: AccumulatedFlips) -> dict[str, Any]:
    """For a report, by time step."""
    return {
        "neuron": one.neuron,
        "flipped": one.flipped.tolist(),
        "hit": one.hit.tolist(),
        "near": None if one.near is None else one.near.tolist(),
        "bound": None if one.bound is None else one.bound.tolist(),
    }


PICTURES = ("crisis", "accumulation")
SUFFIXES = (".svg", ".png")


def list_crisis_pictures(folder: Path | None) -> list[Path]:
    """All that are drawn into a folder, if any."""
    names = [f"{name}{suffix}" for name in PICTURES for suffix in SUFFIXES]
    return [] if folder is None else [folder / name for name in names]


def draw_crisis(
    folder: Path,
    crises: Sequence[CrisisEstimate],
    accumulated: Sequence[AccumulatedFlips],
    conditions: str,
) -> None:
    """Predicted and measured flips of each channel; and all layers together, over time.

    Raises:
        OutputError: a file cannot be written.
    """
    points = {
        layer_name(one.layer): (
            one.compute_counted().tolist(),
            one.compute_flipped().tolist(),
        )
        for one in crises
    }
    courses = {
        one.neuron: FlipCourse(
            flipped=one.flipped.tolist(),
            hit=one.hit.tolist(),
            bound=None if one.bound is None else one.bound.tolist(),
        )
        for one in accumulated
    }
    first, second = ([folder / f"{name}{suffix}" for suffix in SUFFIXES] for name in PICTURES)
    alone = "one layer at a time; a point for each channel"
    plot_predictions(first, points, f"{conditions}, {alone}")
    plot_accumulation(second, courses, f"{conditions}, all layers at once")


@dataclass(frozen=True, kw_only=True)
class CrisisResult:
    """What came of it."""

    crises: tuple[CrisisEstimate, ...]
    """Each layer changed alone."""
    together: Mapping[str, MembraneShift]
    """All layers changed at once, by neuron."""
    accumulated: tuple[AccumulatedFlips, ...]
    """The same from layer to layer and step to step; none where a neuron runs twice in a step."""
    uncounted: tuple[str, ...]
    """Changed layers behind which no neuron is known."""
    calibration: Calibration
    report: dict[str, Any]

    def find_first_empty(self) -> tuple[str, int] | None:
        """Neuron and step from which the bound on the whole says nothing."""
        return find_first_empty(self.accumulated)

    def compute_unions(self) -> list[float]:
        """Theorem 3.5 of each layer: the bound summed over its neurons, at one step of a sample."""
        steps = self.calibration.samples * self.calibration.time_steps
        return [float((one.bound * one.moved.places).sum()) / steps for one in self.crises]


def theory_crisis(options: CrisisOptions, progress: Progress) -> CrisisResult:
    """Change the weights of each layer alone, then of all, and count spikes that flip.

    Raises:
        UsageError: the change makes no sense.
        InputError: there is no network or no data.
        OutputError: a picture is in the way.
    """
    _require_sense(options)
    for path in list_crisis_pictures(options.out):
        require_free(path, force=options.force, inputs=options.list_inputs())
    target = open_target(options)
    found = _measure_crisis(options, target, calibrate_target(target, progress), progress)
    if options.out is not None:
        draw_crisis(
            options.out,
            found.crises,
            found.accumulated,
            _format_conditions(target, found.calibration, options),
        )
    return found


def _measure_crisis(
    options: CrisisOptions, target: Target, calibration: Calibration, progress: Progress
) -> CrisisResult:
    network, spreading = target.require_runnable(), SpreadCollector()
    changed = {key: _change_weight(key, w, options) for key, w in target.find_weights().items()}
    crises = measure_crises(
        network,
        calibration,
        changed,
        target.calibration_batches(),
        at_least=options.error or 0.0,
        keys=progress.track(changed, label="changing layers", total=len(changed)),
    )
    together, _ = measure_shifts(
        network,
        changed,
        calibration.neurons,
        target.calibration_batches(),
        spreading=spreading,
    )
    whole = accumulate_flips(
        network,
        calibration,
        crises,
        spreading.found,
        target.calibration_batches(),
    )
    uncounted = tuple(key for key in changed if key not in {one.layer for one in crises})
    return CrisisResult(
        crises=tuple(crises),
        uncounted=uncounted,
        together=together,
        accumulated=whole,
        calibration=calibration,
        report=make_target_report(
            target,
            "theory crisis",
            warnings=calibration.warnings,
            samples=calibration.samples,
            time_steps=calibration.time_steps,
            sparsity=options.dropped,
            noise=options.noise,
            crises=[asdict(make_crisis_row(one)) for one in crises],
            together={name: describe_shift(one) for name, one in together.items()},
            uncounted=list(uncounted),
            accumulation=[describe_accumulation(one) for one in whole],
            outputs=[{"path": str(path)} for path in list_crisis_pictures(options.out)],
        ),
    )


def _require_sense(options: CrisisOptions) -> None:
    if (options.dropped is None) == (options.noise is None):
        raise UsageError("one change at a time", field="--noise", hint="or --sparsity, not both")
    if options.dropped is not None:
        require_sparsity(options.dropped)
    if options.error is not None and not 0 < options.error < math.inf:
        raise UsageError(f"{options.error:g} is no error", field="--error")
    if options.noise is not None and not 0 < options.noise < 100:
        raise UsageError(f"{options.noise:g} is outside (0, 100)", field="--noise")


def _change_weight(key: str, weight: Tensor, options: CrisisOptions) -> Tensor:
    if options.dropped is not None:
        return drop_smallest(weight, options.dropped)
    assert options.noise is not None
    return add_weight_noise(weight, options.noise, make_generator(options.seed, "noise", key))


def _format_conditions(target: Target, calibration: Calibration, options: CrisisOptions) -> str:
    names = [one.name for one in (target.spec, target.data_spec) if one]
    how = (
        f"{options.dropped:.0%} of each layer's weights pruned by magnitude"
        if options.dropped is not None
        else f"noise of {options.noise:g} standard deviations on each layer's weights"
    )
    images = f"{calibration.samples:,} {target.noun}, T = {calibration.time_steps}"
    return f"{', '.join(names)}, {images}\n{how}"
