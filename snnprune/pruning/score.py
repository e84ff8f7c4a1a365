"""Scores for every weight of a network, each layer by the criterion that fits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.pruning.criteria import Criterion, Evidence, Scale
from snnprune.pruning.criteria.evidence import EvidenceSource, NetworkEvidence, why_unsuited
from snnprune.pruning.criteria.weight import magnitude


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
