"""What a change does to layers, predicted and measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from snnprune.evaluation import Evaluation
from snnprune.quantities import Natural, Share
from snnprune.report import about_evaluation

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
    layers: tuple[LayerEffect, ...]
    evaluation: Evaluation | None
    """With everything changed at once, on the test images."""
    parameters: int | None
    """Numbers that all layers are stored as, where the change makes them fewer."""

    def find_first_to_break(self) -> LayerEffect | None:
        """The layer with the most flips."""
        return max(self.layers, key=lambda one: one.measured, default=None)


def about_effect(one: Effect) -> dict[str, Any]:
    """For a report."""
    return {
        "level": one.level,
        "value": one.value,
        "parameters": one.parameters,
        "evaluation": about_evaluation(one.evaluation),
        "layers": [{**asdict(layer), "good": layer.good} for layer in one.layers],
    }
