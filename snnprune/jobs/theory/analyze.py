"""`snnprune analyze`: what other changes than pruning do to membranes, spikes and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.calibration import Calibration
from snnprune.checkpoint import require_writable_as, write_like
from snnprune.errors import InputError, UsageError
from snnprune.evaluation import Evaluation, evaluate
from snnprune.files import require_free
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.subjects.opening import open_subject
from snnprune.jobs.subjects.options import SubjectOptions
from snnprune.jobs.subjects.reporting import report_on
from snnprune.jobs.subjects.subject import Batches, Subject
from snnprune.jobs.theory.effects import Effect, LayerEffect, about_effect
from snnprune.jobs.theory.levels import Input, Level
from snnprune.network import batch_length, holding
from snnprune.progress import Progress
from snnprune.provenance import described
from snnprune.report import about_evaluation, file_entry
from snnprune.theory import bounds
from snnprune.theory.moving import Moved, moved


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
    work = _Work(options, subject, calibrated(subject, progress), progress)
    dense = work.evaluated({}, None, "evaluating")
    effects = tuple(work.effect(level) for level in options.levels)
    notes = _written(options, subject) if options.out is not None else ()
    outputs = [] if options.out is None else [file_entry(options.out)]
    return Analyzed(
        dense=dense,
        effects=effects,
        uncounted=work.uncounted,
        report=report_on(
            subject,
            f"analyze {options.kind}",
            warnings=(*work.calibration.warnings, *notes),
            samples=work.calibration.samples,
            dense=about_evaluation(dense),
            levels=[about_effect(one) for one in effects],
            uncounted=list(work.uncounted),
            outputs=outputs,
        ),
    )


def _require_room(options: AnalyzeOptions) -> None:
    if options.out is None:
        return
    if len(options.levels) != 1:
        raise UsageError("is of one level", field="-o", hint="give one alone")
    require_writable_as(options.subject.checkpoint, options.out)
    require_free(options.out, force=options.force, inputs=options.subject.inputs)


class _Work:
    def __init__(
        self,
        options: AnalyzeOptions,
        subject: Subject,
        calibration: Calibration,
        progress: Progress,
    ) -> None:
        self.options, self.subject = options, subject
        self.calibration, self.progress = calibration, progress
        disturbing = any(level.input is not None for level in options.levels)
        self.samples_axis = _samples_axis(subject, options.time_axis) if disturbing else 0

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers that are changed, and drive nothing that could be counted."""
        if all(level.weights is None for level in self.options.levels):
            return ()
        seen = self.calibration.layers
        return tuple(k for k in self.subject.weights if not (k in seen and seen[k].drives))

    def effect(self, level: Level) -> Effect:
        """Of one level, layer by layer and on the whole."""
        if level.weights is None:
            found = self._of_input(level)
            changed: dict[str, Tensor] = {}
        else:
            changed = _changed(level, self.subject)
            found = self._of_layers(level, changed)
        stored = level.parameters
        return Effect(
            level=level.name,
            value=level.value,
            layers=tuple(found),
            evaluation=self.evaluated(changed, level.input, f"evaluating {level.name}"),
            parameters=None
            if stored is None
            else sum(stored(weight, groups) for weight, groups in _weights(self.subject)),
        )

    def evaluated(
        self, changed: Mapping[str, Tensor], disturbed: Input | None, label: str
    ) -> Evaluation | None:
        """Accuracy on the test images, where there are some."""
        subject, limit = self.subject, self.options.eval_samples
        network = subject.require_runnable()
        if subject.data is None or subject.data.test is None:
            return None
        batches = self.progress.track(
            subject.batches("test", limit), label=label, total=subject.steps("test", limit)
        )
        with holding(network.module, changed):
            return evaluate(
                network,
                batches if disturbed is None else _disturbed(batches, disturbed(self.samples_axis)),
                run=subject.run,
                readout=subject.readout(),
            )

    def _of_layers(self, level: Level, changed: Mapping[str, Tensor]) -> list[LayerEffect]:
        known = {
            key: drives
            for key in changed
            if (seen := self.calibration.layers.get(key)) and (drives := seen.drives)
        }
        effects = []
        for key in self.progress.track(known, label=level.name, total=len(known)):
            names = [drive.name for drive in known[key]]
            happened = self._moved({key: changed[key]}, names)
            effects += [self._about(key, name, one) for name, one in happened.items()]
        return effects

    def _of_input(self, level: Level) -> list[LayerEffect]:
        happened = self._moved({}, list(self.calibration.neurons), level.input)
        return [self._about("", name, one) for name, one in happened.items()]

    def _moved(
        self, changed: Mapping[str, Tensor], names: Iterable[str], disturbed: Input | None = None
    ) -> dict[str, Moved]:
        subject = self.subject
        batches, network = subject.calibration_batches(), subject.require_runnable()
        if disturbed is None:
            return moved(network, changed, names, batches, run=subject.run)[0]
        change = disturbed(self.samples_axis)
        return moved(network, changed, names, batches, run=subject.run, disturbed=change)[0]

    def _about(self, key: str, name: str, happened: Moved) -> LayerEffect:
        density = bounds.densities(self.calibration.neurons[name]).counted
        predicted = bounds.first_order(density, happened.mean)
        return LayerEffect(
            layer=key,
            neuron=name,
            error=float(happened.mean.mean()),
            predicted=float(predicted.mean()),
            measured=float(happened.rate.mean()),
            correlation=bounds.rank_correlation(predicted, happened.rate),
            places=int(happened.places.sum()),
        )


def _changed(level: Level, subject: Subject) -> dict[str, Tensor]:
    assert level.weights is not None
    changed = (level.weights(weight, groups) for weight, groups in _weights(subject))
    return dict(zip(subject.weights, changed, strict=True))


def _weights(subject: Subject) -> list[tuple[Tensor, int]]:
    """Each with the groups of its layer."""
    layers = subject.require_runnable().layers
    return [
        (weight, layers[key].groups if key in layers else 1)
        for key, weight in subject.weights.items()
    ]


def _disturbed(batches: Batches, change: Callable[[Tensor], Tensor]) -> Batches:
    for x, y in batches:
        yield change(x), y


def _samples_axis(subject: Subject, time_axis: int | None) -> int:
    """1 where time comes first: by `--time-axis`, or a batch whose first dimensions differ.

    Raises:
        InputError: there is none.
    """
    if time_axis is not None:
        return int(time_axis == 0)
    for x, y in subject.calibration_batches():
        samples = batch_length(x, y)
        if x.dim() < 2 or x.shape[0] != x.shape[1] or samples == 1:
            return 0 if x.shape[0] == samples else 1
    raise InputError(
        "whether samples or time come first is not known: there are as many of both",
        field="--time-axis",
        hint="give it, counted from 0, or another --batch-size",
    )


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
    changed = _changed(level, subject)
    notes = write_like(source, options.out, {**source.tensors, **changed}, metadata)
    before = sum(int((weight == 0).sum()) for weight in subject.weights.values())
    after = sum(int((weight == 0).sum()) for weight in changed.values())
    if after < before:
        notes = (*notes, f"{before - after:,} weights that were 0 are not any more")
    return notes
