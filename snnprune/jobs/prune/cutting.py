"""Layers that have a sparsity of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from snnprune.errors import InputError
from snnprune.errors.text import did_you_mean
from snnprune.masks import Masks
from snnprune.pruning.allocation import load_allocation
from snnprune.pruning.oneshot import PrunePlan
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.score import Scores


class LayerCutting:
    """Cuts named layers to their own sparsity and shares another one out among the others."""

    def __init__(self, layers: Mapping[str, float], plan: PrunePlan, final: float) -> None:
        """`final` is the sparsity of the layers that are not named, after the last step."""
        self.layers, self.plan, self.final = layers, plan, final

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        scores: Scores,
        sparsity: float,
        alive: Masks | None,
    ) -> PruneResult:
        """Masks with exact counts in each named layer, and in the others together."""
        way = self._compute_progress(sparsity)
        cuts = [
            cut_alone(key, weights, scores, _interpolate_sparsity(own, way), alive)
            for key, own in self.layers.items()
        ]
        others = {key: weight for key, weight in weights.items() if key not in self.layers}
        if others:
            allocation = self.plan.allocation
            cuts.append(
                prune(others, scores, sparsity=sparsity, allocation=allocation, alive=alive)
            )
        return _merge_cuts(cuts, list(weights))

    def _compute_progress(self, sparsity: float) -> float:
        """How far a step is on the way to the end, in (0, 1], in logarithms of what is kept."""
        if sparsity >= self.final:
            return 1.0
        return math.log1p(-sparsity) / math.log1p(-self.final)


def cut_alone(
    key: str,
    weights: Mapping[str, Tensor],
    scores: Scores,
    sparsity: float,
    alive: Masks | None,
) -> PruneResult:
    """The mask of one layer alone, of exactly that sparsity."""
    return prune(
        {key: weights[key]},
        scores,
        sparsity=sparsity,
        allocation=load_allocation("local"),
        alive=alive,
    )


def _interpolate_sparsity(sparsity: float, way: float) -> float:
    """What is pruned when a layer is `way` of the way to `sparsity`; there it is that exactly."""
    return sparsity if way == 1 else 1 - (1 - sparsity) ** way


def _merge_cuts(cuts: list[PruneResult], order: list[str]) -> PruneResult:
    masks = {key: mask for cut in cuts for key, mask in cut.masks.items()}
    return PruneResult(
        masks={key: masks[key] for key in order},
        already_zero=sum(cut.already_zero for cut in cuts),
        warnings=tuple(warning for cut in cuts for warning in cut.warnings),
    )


def require_layers(
    layers: Mapping[str, float], weights: Mapping[str, Tensor], recipe: Path | None
) -> None:
    """Refuse layers that are not there or may not be pruned.

    Raises:
        InputError: one is; it is named.
    """
    for key in layers:
        if key not in weights:
            raise InputError(
                "is no weight that may be pruned",
                file=recipe,
                field=f"prune.layers.{key}",
                hint=did_you_mean(key, weights),
            )
