"""`snnprune analyze`: what other changes than pruning do to membranes, spikes and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.containers import require_writable_as, write_like
from snnprune.errors import InputError, UsageError
from snnprune.files.writing import require_free
from snnprune.graph.state import replace_tensors
from snnprune.jobs.calibrate import calibrate_target
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import (
    make_target_report,
)
from snnprune.jobs.targets.target import Target
from snnprune.jobs.theory.options import (
    AnalyzeOptions,
    DropOptions,
    LowRankOptions,
    NoiseOptions,
    QuantizeOptions,
)
from snnprune.measure import Natural, Share
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.pruning.criteria.spiking import compute_flip_chance
from snnprune.report import describe_evaluation, make_file_entry
from snnprune.runtime import Progress, make_generator
from snnprune.theory import changes, crisis
from snnprune.theory.shifts import MembraneShift, measure_shifts

GOOD = 2.0  # a prediction within this factor of what happens
UNSEEN = 3.0  # events expected of which none may well be seen (5 %, Poisson)
Weights = Callable[[Tensor, int], Tensor]
"""From a weight and its layer's groups to the changed weight."""
Input = Callable[[int], Callable[[Tensor], Tensor]]
"""From the axis of the samples to what changes the batches of a pass, one after the other."""


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
    levels = _make_levels(options)
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


@dataclass(frozen=True, kw_only=True)
class LayerEffect:
    """Of a layer changed alone, or of a neuron where the input is changed; means over channels."""

    layer: str
    neuron: str
    error: float
    """E|du|, in units of the membrane."""
    predicted: Share
    """p(u_th) E|du| by the counted density."""
    measured: Share
    """Share of spikes that flip as the first of their course."""
    correlation: float | None
    """Of both, by ranks of the channels."""
    places: Natural
    """Neurons times samples times steps that were counted."""

    @property
    def good(self) -> bool:
        """Whether the prediction is within a factor of two, or none was expected nor seen."""
        if self.measured == 0:
            return self.predicted * self.places < UNSEEN
        return 1 / GOOD <= self.predicted / self.measured <= GOOD


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Of one level."""

    level: str
    value: float
    parameters: Natural | None
    """Numbers that all layers are stored as, where the change makes them fewer."""
    evaluation: Evaluation | None
    """With everything changed at once, on the test images."""
    layers: tuple[LayerEffect, ...]

    def find_first_to_break(self) -> LayerEffect | None:
        """The layer with the most flips."""
        return max(self.layers, key=lambda one: one.measured, default=None)


def describe_effect(one: Effect) -> dict[str, Any]:
    """For a report."""
    return {
        "level": one.level,
        "value": one.value,
        "parameters": one.parameters,
        "evaluation": describe_evaluation(one.evaluation),
        "layers": [{**asdict(layer), "good": layer.good} for layer in one.layers],
    }


class ChangeMeter:
    """Runs a network beside itself, changed, on the calibration images and on others."""

    def __init__(
        self,
        target: Target,
        calibration: Calibration,
        progress: Progress,
        *,
        eval_samples: int | None,
        time_axis: int | None,
    ) -> None:
        """`time_axis` is that of a batch, where somebody says."""
        self.target, self.calibration, self.progress = target, calibration, progress
        self.eval_samples, self.time_axis = eval_samples, time_axis
        self._axis: int | None = None

    def list_uncounted(self) -> tuple[str, ...]:
        """Layers that drive nothing that could be counted."""
        seen = self.calibration.layers
        return tuple(k for k in self.target.find_weights() if not (k in seen and seen[k].drives))

    def find_samples_axis(self) -> int:
        """1 where time comes first; looked up once."""
        if self._axis is None:
            self._axis = _find_samples_axis(self.target, self.time_axis)
        return self._axis

    def measure_effect(self, level: ChangeLevel) -> Effect:
        """Of one level, layer by layer and on the whole."""
        if level.weights is None:
            found = self._measure_input(level)
            changed: dict[str, Tensor] = {}
        else:
            changed = change_weights(level, self.target)
            found = self._measure_layers(level, changed)
        stored = level.parameters
        return Effect(
            level=level.name,
            value=level.value,
            layers=tuple(found),
            evaluation=self.evaluate_changed(changed, level.input, f"evaluating {level.name}"),
            parameters=None
            if stored is None
            else sum(stored(weight, groups) for weight, groups in _list_weights(self.target)),
        )

    def evaluate_changed(
        self, changed: Mapping[str, Tensor], disturbed: Input | None, label: str
    ) -> Evaluation | None:
        """Accuracy on the images that it is measured on."""
        target, limit = self.target, self.eval_samples
        network = target.require_runnable()
        split = target.measured
        batches = target.batches(split, limit).track(self.progress, label)
        with replace_tensors(network.module, changed):
            return evaluate(
                network,
                batches
                if disturbed is None
                else _disturb_batches(batches, disturbed(self.find_samples_axis())),
                images=split,
            )

    def _measure_layers(
        self, level: ChangeLevel, changed: Mapping[str, Tensor]
    ) -> list[LayerEffect]:
        known = {
            key: drives
            for key in changed
            if (seen := self.calibration.layers.get(key)) and (drives := seen.drives)
        }
        effects = []
        for key in self.progress.track(known, label=level.name, total=len(known)):
            names = [drive.name for drive in known[key]]
            happened = self._measure_moves({key: changed[key]}, names)
            effects += [self._make_effect(key, name, one) for name, one in happened.items()]
        return effects

    def _measure_input(self, level: ChangeLevel) -> list[LayerEffect]:
        happened = self._measure_moves({}, list(self.calibration.neurons), level.input)
        return [self._make_effect("", name, one) for name, one in happened.items()]

    def _measure_moves(
        self, changed: Mapping[str, Tensor], names: Iterable[str], disturbed: Input | None = None
    ) -> dict[str, MembraneShift]:
        target = self.target
        batches, network = target.calibration_batches(), target.require_runnable()
        if disturbed is None:
            return measure_shifts(network, changed, names, batches)[0]
        change = disturbed(self.find_samples_axis())
        return measure_shifts(network, changed, names, batches, disturbed=change)[0]

    def _make_effect(self, key: str, name: str, happened: MembraneShift) -> LayerEffect:
        density = crisis.compute_densities(self.calibration.neurons[name]).counted
        predicted = compute_flip_chance(density, happened.compute_mean())
        return LayerEffect(
            layer=key,
            neuron=name,
            error=float(happened.compute_mean().mean()),
            predicted=float(predicted.mean()),
            measured=float(happened.compute_rate().mean()),
            correlation=crisis.rank_correlation(predicted, happened.compute_rate()),
            places=int(happened.places.sum()),
        )


def change_weights(level: ChangeLevel, target: Target) -> dict[str, Tensor]:
    """All weights as they are at a level that changes weights."""
    assert level.weights is not None
    changed = (level.weights(weight, groups) for weight, groups in _list_weights(target))
    return dict(zip(target.find_weights(), changed, strict=True))


def _list_weights(target: Target) -> list[tuple[Tensor, int]]:
    """Each with the groups of its layer."""
    layers = target.require_runnable().layers
    return [
        (weight, layers[key].groups if key in layers else 1)
        for key, weight in target.find_weights().items()
    ]


def _disturb_batches(
    batches: Iterable[tuple[Tensor, Tensor | None]], change: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for x, y in batches:
        yield change(x), y


def _find_samples_axis(target: Target, time_axis: int | None) -> int:
    """1 where time comes first: by `--time-axis`, or a batch whose first dimensions differ.

    Raises:
        InputError: there is none, or a batch is no single tensor.
    """
    if time_axis is not None:
        return int(time_axis == 0)
    for x, y in target.calibration_batches():
        require_one_tensor(x)
        samples = target.require_runnable().count_samples(x, y)
        if x.dim() < 2 or x.shape[0] != x.shape[1] or samples == 1:
            return 0 if x.shape[0] == samples else 1
    raise InputError(
        "whether samples or time come first is not known: there are as many of both",
        field="--time-axis",
        hint="give it, counted from 0, or another --batch-size",
    )


@dataclass(frozen=True, kw_only=True)
class ChangeLevel:
    """How strongly something is changed."""

    name: str
    """As it is shown, such as `4 bits`."""
    value: float
    weights: Weights | None = None
    input: Input | None = None
    parameters: Callable[[Tensor, int], int] | None = None
    """How many numbers a weight is stored as then, where these are fewer."""


def _make_levels(options: AnalyzeOptions) -> tuple[ChangeLevel, ...]:
    """The changes that are asked for, one after the other."""
    match options:
        case QuantizeOptions():
            return make_quantize_levels(options.bits, per_channel=options.per == "channel")
        case LowRankOptions():
            return make_low_rank_levels(options.keep)
        case DropOptions():
            return make_prune_levels(options.sparsity)
        case NoiseOptions():
            strengths = options.parse_level()
            return make_noise_levels(options.kind, strengths, options.seed, options.time_axis)
        case _:
            raise NotImplementedError(options.change)


def make_quantize_levels(bits: Iterable[int], *, per_channel: bool) -> tuple[ChangeLevel, ...]:
    """Of whole-number weights."""

    def level(n: int) -> ChangeLevel:
        def rounded(weight: Tensor, _: int) -> Tensor:
            return changes.quantize_weight(weight, n, per_channel=per_channel)

        return ChangeLevel(name=f"{n} bits", value=n, weights=rounded)

    return tuple(map(level, bits))


def make_low_rank_levels(keeps: Iterable[float]) -> tuple[ChangeLevel, ...]:
    """Of decompositions."""

    def level(keep: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{100 * keep:.4g}% of ranks",
            value=keep,
            weights=lambda weight, groups: changes.reduce_rank(weight, keep, groups)[0],
            parameters=lambda weight, groups: changes.reduce_rank(weight, keep, groups)[1],
        )

    return tuple(map(level, keeps))


def make_prune_levels(sparsities: Iterable[float]) -> tuple[ChangeLevel, ...]:
    """Of each layer's smallest weights."""

    def level(sparsity: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{100 * sparsity:.4g}% pruned",
            value=sparsity,
            weights=lambda weight, _: changes.drop_smallest(weight, sparsity),
        )

    return tuple(map(level, sparsities))


def make_noise_levels(
    kind: str, shares: Iterable[float], seed: int, time_axis: int | None
) -> tuple[ChangeLevel, ...]:
    """Of the network's input; spikes jitter along `time_axis` of a batch.

    Raises:
        UsageError: there is no such noise.
    """
    kinds: dict[str, Callable[..., Tensor]] = {
        "gaussian": changes.add_gaussian_noise,
        "delete": changes.delete_spikes,
        "insert": changes.insert_spikes,
        "jitter": changes.jitter_spikes,
    }

    def level(share: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{kind} {share:g}",
            value=share,
            input=partial(_NoiseInjector, kind, kinds[kind], share, seed, time_axis),
        )

    return tuple(map(level, shares))


def require_one_tensor(batch: object) -> None:
    """Refuse a batch of another kind, of which nobody knows what noise is.

    Raises:
        InputError: it is one.
    """
    if not isinstance(batch, Tensor):
        raise InputError("noise is for batches that are one tensor", field="--data")


class _NoiseInjector:
    """Each sample by draws of its own, so that batches do not matter."""

    def __init__(
        self,
        kind: str,
        change: Callable[..., Tensor],
        share: float,
        seed: int,
        time_axis: int | None,
        samples_axis: int,
    ) -> None:
        self.kind, self.change, self.share, self.seed = kind, change, share, seed
        self.time_axis, self.samples_axis = time_axis, samples_axis
        self.done = 0

    def __call__(self, x: Tensor) -> Tensor:
        require_one_tensor(x)
        if self.kind != "gaussian" and not bool(((x == 0) | (x == 1)).all()):
            raise InputError(
                f"{self.kind} is for spikes, and the input has other values than 0 and 1",
                field="--kind",
                hint="choose gaussian",
            )
        along = {"axis": self._find_time_axis(x)} if self.kind == "jitter" else {}
        parts = []
        for one in x.split(1, self.samples_axis):
            draws = make_generator(self.seed, "input", self.kind, self.done)
            parts.append(self.change(one, self.share, draws, **along))
            self.done += 1
        return torch.cat(parts, self.samples_axis)

    def _find_time_axis(self, x: Tensor) -> int:
        """Time comes first, or somebody has to say where."""
        axis = self.time_axis
        if axis is None and self.samples_axis == 1:
            return 0
        if axis is None or axis == self.samples_axis or not 0 <= axis < x.dim():
            said = "which axis is time is not known" if axis is None else f"axis {axis} is not time"
            raise InputError(
                f"{said} of an input {tuple(x.shape)} with its samples along axis "
                f"{self.samples_axis}",
                field="--time-axis",
                hint="give it, counted from 0",
            )
        return axis
