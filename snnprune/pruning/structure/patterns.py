"""N:M patterns: of every M inputs that follow each other, N are kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from snnprune.graph.network import Layer
from snnprune.masks import Masks
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.score import Scores
from snnprune.pruning.structure.structure import Structure


class PatternCutting:
    """Cuts to N:M along the inputs, at each output and place of the kernel by itself.

    A layer whose inputs (of a group of a grouped convolution) are no multiple of M stays as it is.
    Mishra et al. 2021, arXiv 2104.08378, for 2:4.
    """

    def __init__(self, structure: Structure, layers: Mapping[str, Layer] | None = None) -> None:
        """`layers` say how parameters lie to weights; without them each is its weight."""
        self.structure, self.layers = structure, layers or {}

    def __call__(
        self, weights: Mapping[str, Tensor], scores: Scores, _: float, alive: Masks | None
    ) -> PruneResult:
        """The N of each M with the highest scores; ties by |w|, then the last stay."""
        kept = {key: _get_mask(key, weight, alive) for key, weight in weights.items()}
        masks = {
            key: kept[key] & self._make_mask(key, scores.values[key], weight)
            if self.suits(self._weight(key, weight))
            else kept[key]
            for key, weight in weights.items()
        }
        zeros = sum(int((~mask).sum()) for mask in kept.values())
        return PruneResult(
            masks=masks, already_zero=zeros, warnings=tuple(self._list_notes(weights))
        )

    def _weight(self, key: str, held: Tensor) -> Tensor:
        layer = self.layers.get(key)
        return held if layer is None else layer.weight_of(held)

    def _make_mask(self, key: str, scores: Tensor, held: Tensor) -> Tensor:
        """The pattern's mask in the form of the parameter."""
        mask = self.mask(self._weight(key, scores), self._weight(key, held))
        layer = self.layers.get(key)
        return mask if layer is None else layer.parameter_of(mask)

    def suits(self, weight: Tensor) -> bool:
        """Whether a weight (out, in, *kernel) can have the pattern."""
        return weight.shape[1] % self.structure.group == 0

    def mask(self, scores: Tensor, weight: Tensor) -> Tensor:
        """The pattern's mask of one weight (out, in, *kernel)."""
        group, goes = self.structure.group, self.structure.group - self.structure.kept
        by_group = scores.double().movedim(1, -1).unflatten(-1, (-1, group))
        sizes = weight.double().abs().movedim(1, -1).unflatten(-1, (-1, group))
        first = sizes.argsort(dim=-1, stable=True)
        order = first.gather(-1, by_group.gather(-1, first).argsort(dim=-1, stable=True))
        kept = torch.ones_like(by_group, dtype=torch.bool)
        kept.scatter_(-1, order[..., :goes], False)
        return kept.flatten(-2).movedim(-1, 1)

    def _list_notes(self, weights: Mapping[str, Tensor]) -> list[str]:
        name, group = self.structure.name, self.structure.group
        return [
            f"{key} has no {name}: {weight.shape[1]} inputs are no multiple of {group}"
            for key, held in weights.items()
            if not self.suits(weight := self._weight(key, held))
        ]


def _get_mask(key: str, weight: Tensor, alive: Masks | None) -> Tensor:
    return weight != 0 if alive is None else alive[key]
