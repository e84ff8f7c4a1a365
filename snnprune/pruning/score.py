"""Scores for every weight of a network, each layer by the criterion that fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast, get_args

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.network import Layer, Network
from snnprune.masks import Masks
from snnprune.measure.calibration import Calibration, LayerStatistics
from snnprune.measure.gradients import Found, compute_weight_gradients
from snnprune.measure.second_moments import Grams
from snnprune.pruning.criteria import Criterion, Evidence, Needs, Scale
from snnprune.pruning.criteria.weight import magnitude

BY_GRADIENT: frozenset[Needs] = frozenset(get_args(Found))
BY_GRAM: frozenset[Needs] = frozenset({"gram", "membrane-gram"})


@dataclass(frozen=True, kw_only=True)
class NetworkEvidence:
    """The evidence about all layers of a network: nothing, unless it says so."""

    calibration: Calibration | None = None
    gradients: Mapping[str, Tensor] | None = None
    """What a backward pass gives for each weight, by weight key, in the shape of the parameter."""
    grams: Grams | None = None

    def statistics(self, key: str) -> LayerStatistics | None:
        """Of a layer."""
        return self.calibration.layers.get(key) if self.calibration else None

    def suffices(self, needs: Needs) -> bool:
        """Whether a criterion has what it needs."""
        if needs in BY_GRADIENT:
            return self.gradients is not None
        return (self.grams if needs in BY_GRAM else self.calibration) is not None

    def of(
        self,
        key: str,
        weight: Tensor,
        layer: Layer | None,
        criterion: Criterion,
        *,
        suited: bool,
        seed: int,
    ) -> Evidence:
        """The evidence about one layer, as far as `criterion` asks for it.

        `weight` has the form of its parameter. Where the criterion is not `suited` to the layer,
        there are neither gradients nor a Gram matrix.

        Raises:
            InputError: the statistics are those of a layer of another size.
        """
        statistics = self.statistics(key)
        _require_fit(key, layer, statistics)
        gram = self.grams.of(key) if self.grams and suited else None
        return Evidence(
            weight=_as_applied(weight, layer, self._made_weight(criterion, key)),
            key=key,
            groups=layer.groups if layer else 1,
            statistics=statistics,
            found=self._gradient(layer, key) if suited else None,
            gram=gram,
            seed=seed,
        )

    def _made_weight(self, criterion: Criterion, key: str) -> Tensor | None:
        """The weight that a function of the network's makes of the parameter, where one does."""
        if criterion.needs == "weight" or criterion.needs in BY_GRADIENT:
            return None  # gradients are the parameter's
        statistics = self.statistics(key)
        by_gram = self.grams.weight(key) if self.grams else None
        return statistics.weight if by_gram is None and statistics is not None else by_gram

    def _gradient(self, layer: Layer | None, key: str) -> Tensor | None:
        """What a backward pass gives for a weight, in the form of that."""
        gradient = self.gradients.get(key) if self.gradients else None
        return gradient if gradient is None or layer is None else layer.weight_of(gradient)


@dataclass(frozen=True, kw_only=True)
class EvidenceSource:
    """A network, and the data that evidence about it is taken on."""

    network: Network | None
    batches: Batches | None
    calibrate: Callable[[], Calibration | None]
    """Gives statistics, called where a criterion asks for them."""
    seed: int = 0

    def gather(self, needs: Needs) -> NetworkEvidence:
        """What a criterion of these `needs` must know of the network as it is now.

        Gram matrices are taken as they are asked for: the network must not change before. Without
        network or batches there are statistics alone, if any.
        """
        if self.network is None or self.batches is None:
            return NetworkEvidence(calibration=self.calibrate())
        if needs == "weight":
            return NetworkEvidence()
        if needs in BY_GRADIENT:
            return NetworkEvidence(gradients=self._compute_gradients(cast(Found, needs)))
        if needs not in BY_GRAM:
            return NetworkEvidence(calibration=self.calibrate())
        filtered = needs == "membrane-gram"
        return NetworkEvidence(
            # what a membrane adds up moves a neuron
            calibration=self.calibrate() if filtered else None,
            grams=Grams(self.network, self.batches, filtered=filtered, seed=self.seed),
        )

    def _compute_gradients(self, found: Found) -> Mapping[str, Tensor]:
        assert self.network is not None
        assert self.batches is not None
        return compute_weight_gradients(self.network, self.batches, found, seed=self.seed)


def _as_applied(weight: Tensor, layer: Layer | None, made: Tensor | None) -> Tensor:
    """The weight (out, in / groups, *kernel), at least float32: `made` where there is that.

    A copy: what a user's criterion does to it must not reach the file.
    """
    if made is not None:
        weight = made
    elif layer is not None:
        weight = layer.weight_of(weight)
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


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


NOT_MET = "not met in the forward pass"


def why_unsuited(
    criterion: Criterion, layer: Layer | None, evidence: NetworkEvidence, key: str
) -> str | None:
    """Why `criterion` cannot score this layer, or None if it can."""
    if criterion.needs == "weight":
        return None
    unseen = layer.unseen if layer is not None else None
    if criterion.needs in BY_GRADIENT:
        reached = evidence.gradients is not None and key in evidence.gradients
        return None if reached else unseen or "no gradient reaches it"
    if unseen:
        return unseen
    if criterion.needs in BY_GRAM:
        used = evidence.grams is not None and bool(evidence.grams.measure_usage().calls[key])
        return None if used else NOT_MET
    statistics = evidence.statistics(key)
    if layer is None or statistics is None:
        return NOT_MET
    if criterion.needs == "inputs":
        return None
    if not layer.encoding and not statistics.drives:
        return statistics.refused or "no spiking neuron after it"
    return why_without_spikes(layer)


def why_without_spikes(layer: Layer) -> str | None:
    """Why Eq. 12 does not hold for a layer wherever it leads, or None if it may."""
    if layer.encoding:
        return "encoding layer: its input is not spikes"
    if layer.kind == "linear" and not layer.normalised:
        return "linear layer without BatchNorm"
    return None


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

    def of(self, keys: Iterable[str]) -> Scores:
        """The scores of these weights alone."""
        values = {key: self.values[key] for key in keys}
        fallback = {key: why for key, why in self.fallback.items() if key in values}
        return replace(self, values=values, fallback=fallback)


def score(
    weights: Mapping[str, Tensor],
    criterion: Criterion,
    *,
    name: str | None = None,
    network: Network | None = None,
    evidence: NetworkEvidence | None = None,
    alive: Masks | None = None,
    seed: int = 0,
) -> Scores:
    """Score every weight of `weights` by `criterion`, called `name` or its own in reports.

    What is not `alive` (by default: what is 0) is pruned already and scores lowest of all.

    Raises:
        InputError: the criterion needs what is not in `evidence`, or gives NaN.
    """
    name, evidence = name or criterion.name, evidence or NetworkEvidence()
    if criterion.needs != "weight" and (network is None or not evidence.suffices(criterion.needs)):
        raise InputError(
            f"{name} needs the network and data to calibrate on",
            field="--criterion",
            hint="give --model and --data, or choose magnitude",
        )
    values, fallback = {}, {}
    for key, weight in weights.items():
        layer = network.layers.get(key) if network else None
        reason = why_unsuited(criterion, layer, evidence, key)
        if reason is not None:
            fallback[key] = reason
        found = evidence.of(key, weight, layer, criterion, suited=reason is None, seed=seed)
        scores = criterion(found) if reason is None else _score_magnitude(found, criterion.scale)
        kept = weight != 0 if alive is None else alive[key]
        as_held = scores if layer is None else layer.parameter_of(scores)
        values[key] = _check_scores(as_held, kept, key, name)
    return Scores(
        values=values,
        criterion=name,
        scale=criterion.scale,
        degree=criterion.degree,
        fallback=fallback,
    )


def score_network(
    weights: Mapping[str, Tensor],
    criterion: Criterion,
    source: EvidenceSource,
    *,
    alive: Masks | None = None,
) -> Scores:
    """Gather what `criterion` needs to know of the network of `source`, and score by it.

    Raises:
        InputError: as `score`.
    """
    return score(
        weights,
        criterion,
        network=source.network,
        evidence=source.gather(criterion.needs),
        alive=alive,
        seed=source.seed,
    )


def _score_magnitude(evidence: Evidence, scale: Scale) -> Tensor:
    scores = magnitude(evidence)
    return scores.log() if scale == "log" else scores


def _check_scores(scores: object, kept: Tensor, key: str, name: str) -> Tensor:
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
