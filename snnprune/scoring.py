"""Scores for every weight of a network, each layer by the criterion that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snnprune.calibration import LayerStatistics
from snnprune.criteria import Criterion, Evidence, Scale
from snnprune.criteria.weight import magnitude
from snnprune.errors import InputError
from snnprune.known import BY_GRADIENT, BY_GRAM, Known
from snnprune.mask import Masks
from snnprune.network import Layer, Network


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A score per weight, larger = keep, and how it was come by."""

    values: Mapping[str, Tensor]
    """By weight key, each in its weight's shape; -inf for weights that are pruned already."""
    criterion: str
    scale: Scale
    degree: int = 1
    """As of the criterion: the scores grow as |w| to the power of this."""
    fallback: Mapping[str, str] = field(default_factory=dict)
    """Layers scored by magnitude instead, each with the reason."""

    @property
    def by_criterion(self) -> bool:
        """Whether the criterion scored any layer."""
        return any(key not in self.fallback for key in self.values)

    def used(self, key: str) -> str:
        """The criterion that scored this layer."""
        return "magnitude" if key in self.fallback else self.criterion


def score(
    weights: Mapping[str, Tensor],
    criterion: Criterion,
    *,
    name: str | None = None,
    network: Network | None = None,
    known: Known | None = None,
    alive: Masks | None = None,
    seed: int = 0,
) -> Scores:
    """Score every weight of `weights` by `criterion`, called `name` or its own in reports.

    What is not `alive` (by default: what is 0) is pruned already and scores lowest of all.

    Raises:
        InputError: the criterion needs what is not `known`, or gives NaN.
    """
    name, known = name or criterion.name, known or Known()
    if criterion.needs != "weight" and (network is None or not known.suffices(criterion.needs)):
        raise InputError(
            f"{name} needs the network and data to calibrate on",
            field="--criterion",
            hint="give --model and --data, or choose magnitude",
        )
    values, fallback = {}, {}
    for key, weight in weights.items():
        layer = network.layers.get(key) if network else None
        statistics = known.statistics(key)
        reason = unsuited(criterion, layer, known, key)
        if reason is not None:
            fallback[key] = reason
        _require_fit(key, layer, statistics)
        gram = known.grams.of(key) if known.grams and reason is None else None
        evidence = Evidence(
            weight=_as_applied(weight, layer, _made(criterion, known, key)),
            key=key,
            groups=layer.groups if layer else 1,
            statistics=statistics,
            found=_found(known, layer, key) if reason is None else None,
            gram=gram,
            seed=seed,
        )
        scores = criterion(evidence) if reason is None else _magnitude(evidence, criterion.scale)
        kept = weight != 0 if alive is None else alive[key]
        as_held = scores if layer is None else layer.parameter_of(scores)
        values[key] = _checked(as_held, kept, key, name)
    return Scores(
        values=values,
        criterion=name,
        scale=criterion.scale,
        degree=criterion.degree,
        fallback=fallback,
    )


def _as_applied(weight: Tensor, layer: Layer | None, made: Tensor | None) -> Tensor:
    """The weight (out, in / groups, *kernel), at least float32: `made` where there is that.

    A copy: what a user's criterion does to it must not reach the file.
    """
    if made is not None:
        weight = made
    elif layer is not None:
        weight = layer.weight_of(weight)
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def _made(criterion: Criterion, known: Known, key: str) -> Tensor | None:
    """The weight that a function of the network's makes of the parameter, where one does."""
    if criterion.needs == "weight" or criterion.needs in BY_GRADIENT:
        return None  # gradients are the parameter's
    statistics = known.statistics(key)
    by_gram = known.grams.weight(key) if known.grams else None
    return statistics.weight if by_gram is None and statistics is not None else by_gram


def _found(known: Known, layer: Layer | None, key: str) -> Tensor | None:
    """What a backward pass found for a weight, in the form of that."""
    found = known.found.get(key) if known.found else None
    return found if found is None or layer is None else layer.weight_of(found)


def _require_fit(key: str, layer: Layer | None, statistics: LayerStatistics | None) -> None:
    """Refuse statistics of a layer of another size."""
    if layer is None or statistics is None:
        return
    outputs, inputs = layer.shape[0], layer.shape[1] * layer.groups
    neurons = [drive.neuron for drive in statistics.drives]
    fits = statistics.input_rate.shape == (inputs,) and all(
        neuron.membrane_mean.shape == neuron.membrane_var.shape == (outputs,) for neuron in neurons
    )
    if not fits:
        raise InputError(
            f"the statistics are not of a layer of {inputs} inputs and {outputs} outputs",
            field=key,
            hint="run snnprune calibrate again",
        )


def unsuited(criterion: Criterion, layer: Layer | None, known: Known, key: str) -> str | None:
    """Why `criterion` cannot score this layer, or None if it can (decision A8 of docs/criteria)."""
    if criterion.needs == "weight":
        return None
    unseen = layer.unseen if layer is not None else None
    if criterion.needs in BY_GRADIENT:
        reached = known.found is not None and key in known.found
        return None if reached else unseen or "no gradient reaches it"
    if unseen:
        return unseen
    statistics = known.statistics(key)
    if criterion.needs in BY_GRAM:
        used = known.grams is not None and bool(known.grams.measure_usage().calls[key])
        return None if used else "not met in the forward pass"
    if layer is None or statistics is None:
        return "not met in the forward pass"
    if criterion.needs == "inputs":
        return None
    if layer.encoding:
        return "encoding layer: its input is not spikes"
    if not statistics.drives:
        return statistics.refused or "no spiking neuron after it"
    if layer.kind == "linear" and not layer.normalised:
        return "linear layer without BatchNorm"
    return None


def _magnitude(evidence: Evidence, scale: Scale) -> Tensor:
    scores = magnitude(evidence)
    return scores.log() if scale == "log" else scores


def _checked(scores: object, kept: Tensor, key: str, name: str) -> Tensor:
    """Floating scores, those of weights that are pruned already lowest of all."""
    if not isinstance(scores, Tensor) or scores.shape != kept.shape:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(
            f"{name} gives {found} instead of a tensor of {tuple(kept.shape)}", field=key
        )
    if bool(scores.isnan().any()):
        raise InputError(f"{name} gives NaN for {int(scores.isnan().sum())} weights", field=key)
    floating = scores if scores.is_floating_point() else scores.double()
    return floating.masked_fill(~kept, -torch.inf)
