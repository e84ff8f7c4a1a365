"""What a level of change does: flips, layer by layer, and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.making import replace_tensors
from snnprune.jobs.targets.target import Target
from snnprune.jobs.theory.levels import ChangeLevel, Input, require_one_tensor
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.measure.quantities import Natural, Share
from snnprune.pruning.criteria.density import compute_flip_chance
from snnprune.report.frame import describe_evaluation
from snnprune.runtime import Progress
from snnprune.theory import bounds
from snnprune.theory.moving import MembraneShift, measure_shifts

GOOD = 2.0  # a prediction within this factor of what happens
UNSEEN = 3.0  # events expected of which none may well be seen (5 %, Poisson)


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
        density = bounds.compute_densities(self.calibration.neurons[name]).counted
        predicted = compute_flip_chance(density, happened.compute_mean())
        return LayerEffect(
            layer=key,
            neuron=name,
            error=float(happened.compute_mean().mean()),
            predicted=float(predicted.mean()),
            measured=float(happened.compute_rate().mean()),
            correlation=bounds.rank_correlation(predicted, happened.compute_rate()),
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
